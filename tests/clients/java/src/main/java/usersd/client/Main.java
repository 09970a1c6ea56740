package usersd.client;

import io.grpc.CallCredentials;
import io.grpc.Metadata;
import java.util.List;
import java.util.concurrent.Executor;

/**
 * A client of usersd generated for Java.
 *
 * <pre>
 * walk ADDRESS KEY                   signs up, signs in and out: a line for each step
 * reads CONFIG KEY TOKEN ADDRESS...  checks a session without end: a line for each 100 checks
 * </pre>
 */
public final class Main {
  private Main() {}

  public static void main(String[] arguments) throws Exception {
    var rest = List.of(arguments);
    switch (arguments[0]) {
      case "walk" -> Walk.run(rest.get(1), rest.get(2));
      case "reads" -> Reads.run(rest.get(1), rest.get(2), rest.get(3), rest.subList(4, rest.size()));
      default -> throw new IllegalArgumentException("wrong use: " + rest);
    }
  }

  /** Sends an API key with every call. */
  static final class ApiKey extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final Metadata headers = new Metadata();

    ApiKey(String key) {
      headers.put(AUTHORIZATION, "Bearer " + key);
    }

    @Override
    public void applyRequestMetadata(RequestInfo call, Executor executor, MetadataApplier applier) {
      applier.apply(headers);
    }
  }
}
