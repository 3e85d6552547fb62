package blockstore_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/blockstore"
)

func ExampleStore() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "blocks")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	s, err := blockstore.Open(ctx, blockstore.Options{Dir: dir, InlineLimit: 4})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	space, err := tinycloud.ParseSpaceID("tinycloud:key:z6Mkf5rGMoatrSj1f4CyvuHBeXJELe9RPdzo2PKGNCKVtZxP:notes")
	if err != nil {
		fmt.Println(err)
		return
	}
	stage, err := s.Stage(ctx, strings.NewReader("a value"), 1000)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer stage.Discard()
	if body, ok := stage.Bytes(); ok {
		fmt.Println("short enough for the database:", body)
		return
	}
	if err := stage.Commit(ctx, space); err != nil {
		fmt.Println(err)
		return
	}
	v, size, err := s.Open(ctx, space, stage.Hash())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer v.Close()
	body, err := io.ReadAll(v)
	fmt.Println(string(body), size, err)
	// Output: a value 7 <nil>
}
