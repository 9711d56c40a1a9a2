// Says which certificates a Go client accepts, as the API server is one.
//
// Reads a JSON list of cases from standard input and writes an object of their errors, by name; an
// empty error is an accepted certificate. A case with an address is tried there, the others on a
// server in this process.
package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"net"
	"os"
	"sync"
	"time"
)

type testCase struct {
	Name    string
	Chain   []byte
	Key     []byte
	Roots   []byte
	Host    string
	Address string
}

func main() {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		panic(err)
	}
	errors := make([]error, len(cases))
	var group sync.WaitGroup
	for number := range cases {
		group.Add(1)
		go func() {
			defer group.Done()
			errors[number] = cases[number].call()
		}()
	}
	group.Wait()
	texts := map[string]string{}
	for number, one := range cases {
		texts[one.Name] = ""
		if errors[number] != nil {
			texts[one.Name] = errors[number].Error()
		}
	}
	json.NewEncoder(os.Stdout).Encode(texts)
}

func (c testCase) call() error {
	config := &tls.Config{ServerName: c.Host}
	if len(c.Roots) > 0 {
		config.RootCAs = x509.NewCertPool()
		config.RootCAs.AppendCertsFromPEM(c.Roots)
	}
	address := c.Address
	if address == "" {
		pair, err := tls.X509KeyPair(c.Chain, c.Key)
		if err != nil {
			return err
		}
		listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
		if err != nil {
			return err
		}
		defer listener.Close()
		go func() {
			if connection, err := listener.Accept(); err == nil {
				connection.(*tls.Conn).Handshake()
				connection.Close()
			}
		}()
		address = listener.Addr().String()
	}
	dialer := &net.Dialer{Timeout: 20 * time.Second}
	connection, err := tls.DialWithDialer(dialer, "tcp", address, config)
	if err != nil {
		return err
	}
	return connection.Close()
}
