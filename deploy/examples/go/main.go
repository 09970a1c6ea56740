// A gRPC service that tells who is signed in: `shop USERSD KEY`. Prints the address that it serves on.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"shop/shop"
	"shop/users"
)

type whoAmI struct{ shop.UnimplementedWhoAmIServer }

func (whoAmI) Get(ctx context.Context, _ *shop.GetRequest) (*shop.GetResponse, error) {
	user := User(ctx)
	return &shop.GetResponse{Id: user.UserId, Username: user.Username}, nil
}

// apiKey is sent with every call to usersd. It needs the scope `sessions.read`.
type apiKey string

func (key apiKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(key)}, nil
}

// RequireTransportSecurity is false where usersd is on the same machine.
func (apiKey) RequireTransportSecurity() bool { return false }

func main() {
	// Connects with the first call, and again whenever the connection is lost.
	conn, err := grpc.NewClient(os.Args[1],
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithPerRPCCredentials(apiKey(os.Args[2])))
	if err != nil {
		log.Fatal(err)
	}
	sessions := Sessions{users.NewUsersClient(conn)}
	server := grpc.NewServer(grpc.UnaryInterceptor(sessions.Unary), grpc.StreamInterceptor(sessions.Stream))
	shop.RegisterWhoAmIServer(server, whoAmI{})
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(listener.Addr())
	log.Fatal(server.Serve(listener))
}
