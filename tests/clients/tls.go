// Connects with TLS, one connection after the other: ADDRESS NAME CONNECTIONS.
package main

import (
	"crypto/tls"
	"log"
	"os"
	"strconv"
)

func main() {
	connections, err := strconv.Atoi(os.Args[3])
	if err != nil {
		log.Fatal(err)
	}
	// What net/http offers.
	config := &tls.Config{
		InsecureSkipVerify: true,
		NextProtos:         []string{"h2", "http/1.1"},
		ServerName:         os.Args[2],
	}
	for i := 0; i < connections; i++ {
		connection, err := tls.Dial("tcp", os.Args[1], config)
		if err != nil {
			log.Fatal(err)
		}
		if err := connection.Close(); err != nil {
			log.Fatal(err)
		}
	}
}
