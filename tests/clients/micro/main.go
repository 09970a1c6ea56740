// Calls usersd by the micro framework's own client, as its generated clients do and as its dynamic ones: a line of JSON
// for each call on stdout.
//
//	micro call ADDRESS KEY
//	micro posts ADDRESS STATUS PATH...
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/golang/protobuf/proto"
	"github.com/micro/micro/v3/service/client"
	"github.com/micro/micro/v3/service/client/grpc"
	"github.com/micro/micro/v3/service/context/metadata"
	"github.com/micro/micro/v3/service/errors"
)

// What protoc makes of the messages that are called here. Unknown fields of replies are kept and not shown.

type CreateRequest struct {
	Id       string `protobuf:"bytes,1,opt,name=id,proto3" json:"id,omitempty"`
	Username string `protobuf:"bytes,2,opt,name=username,proto3" json:"username,omitempty"`
	Email    string `protobuf:"bytes,3,opt,name=email,proto3" json:"email,omitempty"`
	Password string `protobuf:"bytes,4,opt,name=password,proto3" json:"password,omitempty"`
}

type CreateResponse struct{}

type User struct {
	Id       string `protobuf:"bytes,1,opt,name=id,proto3" json:"id,omitempty"`
	Username string `protobuf:"bytes,2,opt,name=username,proto3" json:"username,omitempty"`
	Email    string `protobuf:"bytes,3,opt,name=email,proto3" json:"email,omitempty"`
}

type ReadRequest struct {
	Id string `protobuf:"bytes,1,opt,name=id,proto3" json:"id,omitempty"`
}

type ReadResponse struct {
	User *User `protobuf:"bytes,1,opt,name=user,proto3" json:"user,omitempty"`
}

func (m *CreateRequest) Reset()          { *m = CreateRequest{} }
func (m *CreateRequest) String() string  { return proto.CompactTextString(m) }
func (*CreateRequest) ProtoMessage()     {}
func (m *CreateResponse) Reset()         { *m = CreateResponse{} }
func (m *CreateResponse) String() string { return proto.CompactTextString(m) }
func (*CreateResponse) ProtoMessage()    {}
func (m *User) Reset()                   { *m = User{} }
func (m *User) String() string           { return proto.CompactTextString(m) }
func (*User) ProtoMessage()              {}
func (m *ReadRequest) Reset()            { *m = ReadRequest{} }
func (m *ReadRequest) String() string    { return proto.CompactTextString(m) }
func (*ReadRequest) ProtoMessage()       {}
func (m *ReadResponse) Reset()           { *m = ReadResponse{} }
func (m *ReadResponse) String() string   { return proto.CompactTextString(m) }
func (*ReadResponse) ProtoMessage()      {}

// What the framework makes of an error.
type said struct {
	Call, Form string
	Reply      interface{}
	Error      *errors.Error
}

func main() {
	if os.Args[1] == "posts" {
		posts(os.Args[2], os.Args[3], os.Args[4:])
		return
	}
	calls(os.Args[2], os.Args[3])
}

func calls(address, key string) {
	usersd := grpc.NewClient()
	out := json.NewEncoder(os.Stdout)
	call := func(form, method, key string, request, reply interface{}) {
		header := metadata.Metadata{"Authorization": "Bearer " + key, "Micro-Namespace": "micro"}
		ctx := metadata.NewContext(context.Background(), header)
		made := usersd.NewRequest("users", "Users."+method, request)
		if form == "json" {
			// As `micro call` does: neither side has a type.
			text, _ := json.Marshal(request)
			var untyped map[string]interface{}
			_ = json.Unmarshal(text, &untyped)
			made = usersd.NewRequest("users", "Users."+method, untyped, client.WithContentType("application/json"))
			reply = &map[string]interface{}{}
		}
		told := said{Call: method, Form: form, Reply: reply}
		if err := usersd.Call(ctx, made, reply, client.WithAddress(address), client.WithRetries(0), client.WithRequestTimeout(time.Minute)); err != nil {
			told.Reply, told.Error = nil, errors.FromError(err)
		}
		if err := out.Encode(told); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	for _, form := range []string{"proto", "json"} {
		new := &CreateRequest{Id: form, Username: form, Email: form + "@example.com", Password: "correct horse"}
		call(form, "Create", key, new, &CreateResponse{})
		call(form, "Read", key, &ReadRequest{Id: form}, &ReadResponse{})
		call(form, "Read", key, &ReadRequest{Id: "nobody"}, &ReadResponse{})
		call(form, "Create", key, &CreateRequest{Username: form, Password: "correct horse"}, &CreateResponse{})
		call(form, "Create", key, &CreateRequest{Username: "a b", Password: "x"}, &CreateResponse{})
		call(form, "Read", "unknown", &ReadRequest{Id: form}, &ReadResponse{})
	}
}
