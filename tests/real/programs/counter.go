// A Go program that counts with several goroutines and answers on a unix socket.
package main

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

func main() {
	var ticks, bad atomic.Int64
	var wg sync.WaitGroup
	for i := 0; i < 8; i++ {
		wg.Add(1)
		go func(seed int) {
			defer wg.Done()
			for {
				m := map[int]int{}
				for j := 0; j < 1000; j++ {
					m[j] = j * seed
				}
				for j := 0; j < 1000; j++ {
					if m[j] != j*seed {
						bad.Add(1)
					}
				}
				ticks.Add(1)
				time.Sleep(time.Millisecond)
			}
		}(i)
	}
	listener, err := net.Listen("unix", os.Args[1])
	if err != nil {
		panic(err)
	}
	fmt.Println("ready")
	for answers := 0; ; answers++ {
		conn, err := listener.Accept()
		if err != nil {
			panic(err)
		}
		fmt.Fprintf(conn, "%d %d %d\n", answers, bad.Load(), ticks.Load())
		conn.Close()
	}
}
