package hostkeys_test

import (
	"crypto/ed25519"
	"fmt"

	tinycloud "github.com/TinyCloudLabs/tinycloud-peer"
	"github.com/TinyCloudLabs/tinycloud-peer/hostkeys"
)

func Example() {
	keys, err := hostkeys.New(make([]byte, 32))
	if err != nil {
		panic(err)
	}
	space, err := tinycloud.ParseSpaceID("tinycloud:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK:photos")
	if err != nil {
		panic(err)
	}
	host := keys.SpaceKey(space).Public().(ed25519.PublicKey)
	fmt.Println(hostkeys.DIDKey(host))

	for _, did := range []string{"did:key:z6Mkhii3dc85dDjEh4T5KoSyRwnoPxUH8uEqSfmoESjUMZx8", "did:key:z2DTgWqgK2pSrztm7CNUpZPSALQoRi2HLitNivwPUyMq6W8"} {
		parsed, err := hostkeys.ParseHostDID(did)
		fmt.Println(parsed.Equal(host), err)
	}
	// Output:
	// did:key:z6Mkhii3dc85dDjEh4T5KoSyRwnoPxUH8uEqSfmoESjUMZx8
	// true <nil>
	// true <nil>
}
