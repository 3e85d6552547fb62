package main

import (
	"encoding/hex"
	"os"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/TinyCloudLabs/tinycloud-peer/capstore/captest"
)

// wallet SEED sets SPACE to the Space "default" of a wallet.
func wallet(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: wallet seed")
	}
	ts.Setenv("SPACE", captest.NewWallet(args[0]).Space("default").String())
}

// sign SEED FILE sets SIGNATURE to a wallet's personal_sign of a file without the line break at its end.
func sign(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: sign seed file")
	}
	text := strings.TrimSuffix(ts.ReadFile(args[1]), "\n")
	ts.Setenv("SIGNATURE", "0x"+hex.EncodeToString(captest.NewWallet(args[0]).SignText([]byte(text))))
}

// await FILE TEXT waits until a file holds a text.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await file text")
	}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(20 * time.Second)
	for {
		b, err := os.ReadFile(ts.MkAbs(args[0]))
		if err == nil && strings.Contains(string(b), args[1]) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			ts.Fatalf("%s does not hold %q: %v\n%s", args[0], args[1], err, b)
		}
	}
}
