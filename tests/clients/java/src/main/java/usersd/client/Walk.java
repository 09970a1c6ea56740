package usersd.client;

import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import java.util.StringJoiner;
import java.util.concurrent.TimeUnit;
import java.util.stream.Collectors;
import usersd.users.CreateRequest;
import usersd.users.ListRequest;
import usersd.users.LoginRequest;
import usersd.users.LogoutRequest;
import usersd.users.ReadSessionRequest;
import usersd.users.User;
import usersd.users.UsersGrpc;
import usersd.users.UsersGrpc.UsersBlockingStub;

final class Walk {
  private Walk() {}

  static void run(String address, String key) throws Exception {
    var channel = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create()).build();
    try {
      walk(UsersGrpc.newBlockingStub(channel)
          .withCallCredentials(new Main.ApiKey(key))
          .withDeadlineAfter(60, TimeUnit.SECONDS));
    } finally {
      channel.shutdownNow();
    }
  }

  private static void walk(UsersBlockingStub users) throws InvalidProtocolBufferException {
    var ada = users.create(CreateRequest.newBuilder()
        .setUsername("ada").setEmail("ada@example.com").setPassword("correct horse").build()).getUser();
    System.out.println("created " + ada.getUsername() + " " + ada.getEmail());

    var token = users.login(LoginRequest.newBuilder().setUsername("ada").setPassword("correct horse").build())
        .getSession().getId();
    var read = ReadSessionRequest.newBuilder().setSessionId(token).build();
    var session = users.readSession(read).getSession();
    System.out.println("session " + session.getUsername() + " " + session.getEmail());

    System.out.println("pages " + pages(users));

    users.logout(LogoutRequest.newBuilder().setSessionId(token).build());
    System.out.println("logged out " + refusal(() -> users.readSession(read)));

    var wrong = CreateRequest.newBuilder().setUsername("é").setEmail("nobody").setPassword("short").build();
    System.out.println("refused " + refusal(() -> users.create(wrong)));
  }

  /** Creates four more users and lists all, two at a time. */
  private static String pages(UsersBlockingStub users) {
    for (int number = 1; number <= 4; number++) {
      users.create(CreateRequest.newBuilder().setUsername("user" + number).setSsoEnabled(true).build());
    }
    var pages = new StringJoiner(" ");
    var request = ListRequest.newBuilder().setOrderBy("username").setLimit(2);
    String token;
    do {
      var page = users.list(request.build());
      pages.add(page.getUsersList().stream().map(User::getUsername).collect(Collectors.joining(",")));
      token = page.getNextPageToken();
      request.setPageToken(token);
    } while (!token.isEmpty());
    return pages.toString();
  }

  /** The code, the reason and the fields at fault of a call that must fail. */
  private static String refusal(Runnable call) throws InvalidProtocolBufferException {
    try {
      call.run();
    } catch (StatusRuntimeException error) {
      var status = StatusProto.fromThrowable(error);
      var text = new StringJoiner(" ").add(String.valueOf(status.getCode()));
      for (var detail : status.getDetailsList()) {
        if (detail.is(ErrorInfo.class)) {
          text.add(detail.unpack(ErrorInfo.class).getReason());
        } else if (detail.is(BadRequest.class)) {
          text.add(detail.unpack(BadRequest.class).getFieldViolationsList().stream()
              .map(BadRequest.FieldViolation::getField).collect(Collectors.joining(",")));
        }
      }
      return text.toString();
    }
    throw new IllegalStateException("the call should be refused");
  }
}
