package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"strings"
)

// posts sends 200 bodies to each path over one kept connection, in chunks and with a length, and prints how many answers
// did not come, were others than `status`, or needed another connection.
func posts(address, status string, paths []string) {
	for _, path := range paths {
		for _, form := range []string{"chunked", "64 KiB"} {
			broken, others, dialled := 0, 0, 0
			client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
			for n := 0; n < 200; n++ {
				var body io.Reader = bytes.NewReader(make([]byte, 64*1024))
				if form == "chunked" {
					// A reader of no known length.
					body = io.MultiReader(strings.NewReader(strings.Repeat("x", 100)))
				}
				request, err := http.NewRequest(http.MethodPost, "http://"+address+path, body)
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					os.Exit(1)
				}
				request.Header.Set("Content-Type", "application/json")
				trace := &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
					if !info.Reused {
						dialled++
					}
				}}
				reply, err := client.Do(request.WithContext(httptrace.WithClientTrace(request.Context(), trace)))
				if err != nil {
					broken++
					continue
				}
				io.Copy(io.Discard, reply.Body)
				reply.Body.Close()
				if fmt.Sprint(reply.StatusCode) != status {
					others++
				}
			}
			fmt.Printf("%s %s: broken %d, others %d, connections %d\n", path, form, broken, others, dialled)
		}
	}
}
