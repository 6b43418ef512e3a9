// An HTTP server that answers each request with how many there have been before it; a timer checks on the event loop.
const http = require("http");

let count = 0;
let ticks = 0;
setInterval(() => { ticks += 1; }, 10);
http.createServer((_, response) => {
    const before = ticks;
    // The answer waits for the timer, so that one that has stopped is noticed.
    const wait = () => (ticks > before ? response.end(`${count++}\n`) : setTimeout(wait, 5));
    wait();
}).listen(8080);
