// A client of usersd generated for Go.
//
//	client walk ADDRESS KEY                  signs up, signs in and out: a line for each step
//	client reads CONFIG KEY TOKEN ADDRESS... checks a session without end: a line for each 100 checks
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// apiKey is sent with every call.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

// RequireTransportSecurity is false for this test alone: a key belongs on TLS.
func (apiKey) RequireTransportSecurity() bool { return false }

func connect(target, key string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	options = append(options,
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(apiKey(key)))
	return grpc.NewClient(target, options...)
}

func run(arguments []string) error {
	switch {
	case len(arguments) == 3 && arguments[0] == "walk":
		return walk(arguments[1], arguments[2])
	case len(arguments) > 4 && arguments[0] == "reads":
		return reads(arguments[1], arguments[2], arguments[3], arguments[4:])
	default:
		return fmt.Errorf("wrong use: %q", arguments)
	}
}

func main() {
	if err := run(os.Args[1:]); err != nil {
		log.Fatal(err)
	}
}
