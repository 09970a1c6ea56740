package main

import (
	"context"
	"fmt"
	"os"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"

	pb "usersd/users"
)

const readers = 8

// reads checks a session by all replicas, until stdin ends. In place of DNS, whose names have no ports.
func reads(config, key, token string, addresses []string) error {
	text, err := os.ReadFile(config)
	if err != nil {
		return err
	}
	replicas := manual.NewBuilderWithScheme("replicas")
	var state resolver.State
	for _, address := range addresses {
		state.Addresses = append(state.Addresses, resolver.Address{Addr: address})
	}
	replicas.InitialState(state)
	conn, err := connect("replicas:///usersd", key, grpc.WithResolvers(replicas), grpc.WithDefaultServiceConfig(string(text)))
	if err != nil {
		return err
	}
	defer conn.Close()

	ctx := untilStdinEnds()
	users := pb.NewUsersClient(conn)
	var answered atomic.Int64
	var all sync.WaitGroup
	for reader := 0; reader < readers; reader++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for ctx.Err() == nil {
				// Without the context: the last calls end in order.
				_, err := users.ReadSession(context.Background(), &pb.ReadSessionRequest{SessionId: token})
				if err != nil {
					fmt.Println("failed", status.Code(err), err)
				} else if answered.Add(1)%100 == 0 {
					fmt.Println("answered")
				}
			}
		}()
	}
	all.Wait()
	fmt.Println("done")
	return nil
}

func untilStdinEnds() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	go func() {
		_, _ = os.Stdin.Read(make([]byte, 1))
		cancel()
	}()
	return ctx
}
