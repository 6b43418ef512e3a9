import java.io.FileWriter;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.concurrent.atomic.AtomicLong;

/** Fifty threads that each count and check; says so in a file whenever the file "ask" is there. */
public class Threads {
    public static void main(String[] args) throws Exception {
        Path ask = Path.of(args[0], "ask");
        Path answer = Path.of(args[0], "answer");
        AtomicLong ticks = new AtomicLong();
        AtomicLong bad = new AtomicLong();
        int n = 50;
        for (int i = 0; i < n; i++) {
            long seed = i;
            Thread thread = new Thread(() -> {
                long value = seed;
                double sum = 0;
                for (long round = 0; ; round++) {
                    value = value * 6364136223846793005L + 1442695040888963407L;
                    sum += Math.sqrt(round);
                    if (Double.isNaN(sum)) bad.incrementAndGet();
                    ticks.incrementAndGet();
                    try { Thread.sleep(5); } catch (InterruptedException e) { bad.incrementAndGet(); }
                }
            });
            thread.setDaemon(true);
            thread.start();
        }
        System.out.println("ready");
        long asked = 0;
        while (true) {
            if (Files.exists(ask)) {
                Files.delete(ask);
                long before = ticks.get();
                Thread.sleep(50);
                boolean moving = ticks.get() > before;
                System.out.println("answer " + asked++ + " bad " + bad.get() + " moving " + moving);
            }
            Thread.sleep(10);
        }
    }
}
