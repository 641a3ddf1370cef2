// Go's net/http.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

type exchange struct{ name, method, path, framing, together, contentType, file string }

// onlyReader hides what net/http would learn a length from.
type onlyReader struct{ io.Reader }

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	url, version, ca, plan, out := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[5]
	transport := &http.Transport{
		Proxy:                 http.ProxyFromEnvironment,
		Protocols:             new(http.Protocols),
		ExpectContinueTimeout: time.Second, // as in http.DefaultTransport
		MaxIdleConnsPerHost:   100,
	}
	if ca != "-" {
		pem, err := os.ReadFile(ca)
		check(err)
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(pem)
		transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	}
	switch {
	case version == "1.1":
		transport.Protocols.SetHTTP1(true)
	case ca != "-":
		transport.Protocols.SetHTTP2(true)
	default:
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	client := &http.Client{Transport: transport, Timeout: 60 * time.Second}

	send := func(one exchange) {
		var body io.Reader
		if one.file != "-" {
			text, err := os.ReadFile(one.file)
			check(err)
			body = bytes.NewReader(text)
			if one.framing == "chunked" {
				body = onlyReader{body}
			}
		}
		request, err := http.NewRequest(one.method, url+one.path, body)
		check(err)
		request.Header.Set("X-Exchange", one.name)
		if one.contentType != "-" {
			request.Header.Set("Content-Type", one.contentType)
		}
		if one.framing == "expect" {
			request.Header.Set("Expect", "100-continue")
		}
		answer, err := client.Do(request)
		check(err)
		defer answer.Body.Close()
		got, err := io.ReadAll(answer.Body)
		check(err)
		spoken := map[int]string{1: "1.1", 2: "2"}[answer.ProtoMajor]
		head := fmt.Sprintf("%d\n%s\n", answer.StatusCode, spoken)
		check(os.WriteFile(filepath.Join(out, one.name+".head"), []byte(head), 0o600))
		check(os.WriteFile(filepath.Join(out, one.name+".body"), got, 0o600))
	}

	text, err := os.ReadFile(plan)
	check(err)
	var together []exchange
	for _, line := range strings.Split(strings.TrimSuffix(string(text), "\n"), "\n") {
		column := strings.Split(line, "\t")
		one := exchange{column[0], column[1], column[2], column[3], column[4], column[5], column[6]}
		if one.together == "yes" {
			together = append(together, one)
		} else {
			send(one)
		}
	}
	var all sync.WaitGroup
	for _, one := range together {
		all.Add(1)
		go func() {
			defer all.Done()
			send(one)
		}()
	}
	all.Wait()
}
