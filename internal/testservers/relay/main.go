// Command relay is a way to a TCP address of this machine that takes time, in a process of its own, so that what passes is late
// by what it is to be late and not by what the benchmark beside it has to do. Its arguments are the address, the delay of each
// direction, and the bytes a second that a connection carries each way, 0 for as many as come. It prints the address at which it
// is entered, and ends with its standard input.
package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"runtime"
	"strconv"
	"time"
)

// waiting is how many threads may wait for the time of a piece and still run at once when it has come: Go would have them queue for one
// of the few that it gives a processor.
const waiting = 256

func main() {
	log.SetFlags(0)
	runtime.GOMAXPROCS(waiting)
	if err := run(os.Args[1:]); err != nil {
		log.Fatal("relay: ", err)
	}
}

func run(args []string) error {
	if len(args) != 3 {
		return errors.New("wants an address, a delay and bytes a second")
	}
	delay, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	rate, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	go accept(l, args[0], delay, rate)
	fmt.Println(l.Addr())
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

func accept(l net.Listener, to string, delay time.Duration, rate int) {
	most := 1024
	if rate > 0 {
		most = max(1, int(int64(rate)*delay.Milliseconds()/1000/pieceSize))
	}
	for {
		near, err := l.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			_ = near.Close()
			continue
		}
		go carry(near, far, delay, most)
		go carry(far, near, delay, most)
	}
}

// pieceSize is the most bytes that go together.
const pieceSize = 16 << 10

type piece struct {
	bytes []byte
	at    time.Time // of its arrival
}

// carry copies what comes, a while after it came, with so many pieces on their way, and ends both connections with one.
func carry(from, to net.Conn, delay time.Duration, most int) {
	way := make(chan piece, most)
	go func() {
		for p := range way {
			sleepUntil(p.at)
			if _, err := to.Write(p.bytes); err != nil {
				break
			}
		}
		_ = errors.Join(from.Close(), to.Close())
		for range way { // until the reader ends, too
		}
	}()
	defer close(way)
	b := make([]byte, pieceSize)
	for {
		n, err := from.Read(b)
		if n > 0 {
			way <- piece{append([]byte(nil), b[:n]...), time.Now().Add(delay)}
		}
		if err != nil {
			return
		}
	}
}
