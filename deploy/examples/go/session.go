package main

import (
	"context"
	"log"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"shop/users"
)

// How long a call waits for usersd.
const deadline = 2 * time.Second

// The cookie that holds the token; `authorization: Bearer` does, too.
const cookie = "session"

type userKey struct{}

// User is the user who is signed in. Behind the interceptors there always is one.
func User(ctx context.Context) *users.Session {
	session, _ := ctx.Value(userKey{}).(*users.Session)
	return session
}

// Sessions checks the session of each call. The client's connection is shared by all.
type Sessions struct{ Users users.UsersClient }

// Unary is the interceptor for calls of one message.
func (s Sessions) Unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	ctx, err := s.check(ctx)
	if err != nil {
		return nil, err
	}
	return next(ctx, request)
}

// Stream is the interceptor for streams, which are checked as they begin.
func (s Sessions) Stream(service any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	ctx, err := s.check(stream.Context())
	if err != nil {
		return err
	}
	return next(service, withContext{stream, ctx})
}

type withContext struct {
	grpc.ServerStream
	ctx context.Context
}

func (s withContext) Context() context.Context { return s.ctx }

// check adds the user to the context. Whatever is not certain is refused.
func (s Sessions) check(ctx context.Context) (context.Context, error) {
	token := token(ctx)
	if token == "" {
		return nil, status.Error(codes.Unauthenticated, "sign in first")
	}
	limited, cancel := context.WithTimeout(ctx, deadline)
	defer cancel()
	reply, err := s.Users.ReadSession(limited, &users.ReadSessionRequest{SessionId: token})
	switch status.Code(err) {
	case codes.OK:
		return context.WithValue(ctx, userKey{}, reply.Session), nil
	case codes.NotFound, codes.InvalidArgument:
		return nil, status.Error(codes.Unauthenticated, "sign in again")
	default:
		// Also a key of ours that usersd refuses.
		log.Print("usersd: ", err)
		return nil, status.Error(codes.Unavailable, "sessions cannot be checked now")
	}
}

// token is what `authorization` holds, or else the cookie.
func token(ctx context.Context) string {
	sent, _ := metadata.FromIncomingContext(ctx)
	for _, value := range sent.Get("authorization") {
		if strings.HasPrefix(value, "Bearer ") {
			return strings.TrimPrefix(value, "Bearer ")
		}
	}
	request := http.Request{Header: http.Header{"Cookie": sent.Get("cookie")}}
	if found, err := request.Cookie(cookie); err == nil {
		return found.Value
	}
	return ""
}
