package config_test

import (
	"fmt"
	"os"

	"github.com/TinyCloudLabs/tinycloud-peer/config"
)

func ExampleLoad() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	c, warnings, err := config.Load(config.LoadOptions{
		Dir:     dir,
		Environ: []string{"TINYCLOUD_STORAGE_DATADIR=/var/lib/tinycloud", "TINYCLOUD_STORAGE_LIMIT=1 GiB", "ROCKET_PORT=80"},
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(c.Port, c.Storage.Database, c.Storage.Limit, len(warnings))
	// Output: 80 sqlite:/var/lib/tinycloud/caps.db 1 GiB 0
}
