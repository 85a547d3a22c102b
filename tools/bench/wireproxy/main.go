// wireproxy as its own main starts it, but for the sandbox of OpenBSD.
package main

import (
	"log"
	"os"

	"github.com/pufferffish/wireproxy"
	"golang.zx2c4.com/wireguard/device"
)

func main() {
	configuration, err := wireproxy.ParseConfig(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	tunnel, err := wireproxy.StartWireguard(configuration.Device, device.LogLevelSilent)
	if err != nil {
		log.Fatal(err)
	}
	for _, routine := range configuration.Routines {
		go routine.SpawnRoutine(tunnel)
	}
	select {}
}
