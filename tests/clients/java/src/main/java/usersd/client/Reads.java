package usersd.client;

import com.google.gson.Gson;
import io.grpc.EquivalentAddressGroup;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.NameResolver;
import io.grpc.NameResolverProvider;
import io.grpc.NameResolverRegistry;
import io.grpc.StatusOr;
import io.grpc.StatusRuntimeException;
import java.net.InetSocketAddress;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicBoolean;
import java.util.concurrent.atomic.AtomicLong;
import usersd.users.ReadSessionRequest;
import usersd.users.UsersGrpc;

/** Checks a session by all replicas, until stdin ends. */
final class Reads {
  private static final int READERS = 8;

  private Reads() {}

  @SuppressWarnings("unchecked")
  static void run(String config, String key, String token, List<String> addresses) throws Exception {
    NameResolverRegistry.getDefaultRegistry().register(new Replicas(addresses));
    Map<String, Object> parsed = new Gson().fromJson(Files.readString(Path.of(config)), Map.class);
    var channel = Grpc.newChannelBuilder("replicas:///usersd", InsecureChannelCredentials.create())
        .defaultServiceConfig(parsed).enableRetry().build();
    var users = UsersGrpc.newBlockingStub(channel).withCallCredentials(new Main.ApiKey(key));
    var request = ReadSessionRequest.newBuilder().setSessionId(token).build();
    var ended = new AtomicBoolean();
    var answered = new AtomicLong();
    var readers = Executors.newFixedThreadPool(READERS);
    for (int reader = 0; reader < READERS; reader++) {
      readers.submit(() -> {
        while (!ended.get()) {
          try {
            users.readSession(request);
            if (answered.incrementAndGet() % 100 == 0) {
              System.out.println("answered");
            }
          } catch (StatusRuntimeException error) {
            System.out.println("failed " + error.getStatus());
          }
        }
      });
    }
    System.in.read();
    ended.set(true);
    readers.shutdown();
    System.out.println(readers.awaitTermination(30, TimeUnit.SECONDS) ? "done" : "failed to end");
    channel.shutdownNow();
  }

  /** The addresses of all replicas, in place of DNS, whose names have no ports. */
  private static final class Replicas extends NameResolverProvider {
    private final List<EquivalentAddressGroup> groups;

    Replicas(List<String> addresses) {
      groups = addresses.stream().map(address -> {
        var uri = URI.create("replica://" + address);
        return new EquivalentAddressGroup(new InetSocketAddress(uri.getHost(), uri.getPort()));
      }).toList();
    }

    @Override
    public NameResolver newNameResolver(URI target, NameResolver.Args arguments) {
      return new NameResolver() {
        @Override
        public String getServiceAuthority() {
          return "localhost";
        }

        @Override
        public void start(Listener2 listener) {
          listener.onResult(ResolutionResult.newBuilder().setAddressesOrError(StatusOr.fromValue(groups)).build());
        }

        @Override
        public void shutdown() {}
      };
    }

    @Override
    public String getDefaultScheme() {
      return "replicas";
    }

    @Override
    protected boolean isAvailable() {
      return true;
    }

    @Override
    protected int priority() {
      return 5;
    }
  }
}
