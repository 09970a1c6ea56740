// grpc-gateway as it is generated from proto/, with its defaults, in front of a server's gRPC.
//
//	gateway ADDRESS  serves on a free port, which it prints, until its standard input ends
package main

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	_ "google.golang.org/genproto/googleapis/rpc/errdetails" // the gateway writes only details that it knows
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"usersd/users"
)

func run(server string) error {
	mux := runtime.NewServeMux()
	connection, err := grpc.NewClient(server, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	ctx := context.Background()
	if err := users.RegisterUsersHandler(ctx, mux, connection); err != nil {
		return err
	}
	if err := users.RegisterKeysHandler(ctx, mux, connection); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "gateway listening on %s\n", listener.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	return http.Serve(listener, mux)
}

func main() {
	if len(os.Args) != 2 {
		log.Fatalf("usage: %s ADDRESS", os.Args[0])
	}
	log.Fatal(run(os.Args[1]))
}
