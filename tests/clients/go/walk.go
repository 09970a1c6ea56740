package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	pb "usersd/users"
)

func walk(address, key string) error {
	conn, err := connect(address, key)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	users := pb.NewUsersClient(conn)

	created, err := users.Create(ctx, &pb.CreateRequest{
		Username: "ada", Email: "ada@example.com", Password: "correct horse",
	})
	if err != nil {
		return err
	}
	fmt.Println("created", created.User.Username, created.User.Email)

	login, err := users.Login(ctx, &pb.LoginRequest{Username: "ada", Password: "correct horse"})
	if err != nil {
		return err
	}
	token := login.Session.Id
	read, err := users.ReadSession(ctx, &pb.ReadSessionRequest{SessionId: token})
	if err != nil {
		return err
	}
	fmt.Println("session", read.Session.Username, read.Session.Email)

	if err := pages(ctx, users); err != nil {
		return err
	}

	if _, err := users.Logout(ctx, &pb.LogoutRequest{SessionId: token}); err != nil {
		return err
	}
	_, err = users.ReadSession(ctx, &pb.ReadSessionRequest{SessionId: token})
	fmt.Println("logged out", refusal(err))

	_, err = users.Create(ctx, &pb.CreateRequest{Username: "é", Email: "nobody", Password: "short"})
	fmt.Println("refused", refusal(err))
	return nil
}

// pages creates four more users and lists all, two at a time.
func pages(ctx context.Context, users pb.UsersClient) error {
	for number := 1; number <= 4; number++ {
		request := &pb.CreateRequest{Username: fmt.Sprintf("user%d", number), SsoEnabled: true}
		if _, err := users.Create(ctx, request); err != nil {
			return err
		}
	}
	var shown []string
	limit := int64(2)
	request := &pb.ListRequest{OrderBy: "username", Limit: &limit}
	for {
		page, err := users.List(ctx, request)
		if err != nil {
			return err
		}
		var names []string
		for _, user := range page.Users {
			names = append(names, user.Username)
		}
		shown = append(shown, strings.Join(names, ","))
		if page.NextPageToken == "" {
			break
		}
		request.PageToken = page.NextPageToken
	}
	fmt.Println("pages", strings.Join(shown, " "))
	return nil
}

// refusal is the code, the reason and the fields at fault.
func refusal(err error) string {
	of := status.Convert(err)
	text := fmt.Sprint(int(of.Code()))
	for _, detail := range of.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			text += " " + detail.Reason
		case *errdetails.BadRequest:
			var fields []string
			for _, violation := range detail.FieldViolations {
				fields = append(fields, violation.Field)
			}
			text += " " + strings.Join(fields, ",")
		}
	}
	return text
}
