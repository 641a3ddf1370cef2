import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.zip.GZIPInputStream;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/** java.net.http. Without TLS it asks for HTTP/2 by an upgrade, and speaks HTTP/1.1 if that is not taken. */
class Client {
    record Exchange(String name, String method, String path, String framing, String together, String type, String file) {}

    public static void main(String[] arguments) throws Exception {
        String url = arguments[0];
        HttpClient.Builder builder = HttpClient.newBuilder()
                .version(arguments[1].equals("2") ? HttpClient.Version.HTTP_2 : HttpClient.Version.HTTP_1_1)
                .followRedirects(HttpClient.Redirect.ALWAYS);
        if (!arguments[2].equals("-")) {
            builder.sslContext(trusting(Path.of(arguments[2])));
        }
        HttpClient client = builder.build();
        Path out = Path.of(arguments[4]);

        List<CompletableFuture<Void>> together = new ArrayList<>();
        for (String line : Files.readAllLines(Path.of(arguments[3]))) {
            String[] column = line.split("\t");
            Exchange one = new Exchange(column[0], column[1], column[2], column[3], column[4], column[5], column[6]);
            HttpRequest request = request(url, one);
            if (one.together().equals("yes")) {
                together.add(client.sendAsync(request, BodyHandlers.ofByteArray()).thenAccept(answer -> keep(out, one, answer)));
            } else {
                keep(out, one, client.send(request, BodyHandlers.ofByteArray()));
            }
        }
        together.forEach(CompletableFuture::join);
    }

    static HttpRequest request(String url, Exchange one) throws Exception {
        BodyPublisher body = BodyPublishers.noBody();
        if (!one.file().equals("-")) {
            byte[] text = Files.readAllBytes(Path.of(one.file()));
            // From a stream its length is not known.
            body = one.framing().equals("chunked")
                    ? BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(text))
                    : BodyPublishers.ofByteArray(text);
        }
        HttpRequest.Builder request = HttpRequest.newBuilder(URI.create(url + one.path()))
                .timeout(Duration.ofSeconds(60))
                .expectContinue(one.framing().equals("expect"))
                .header("X-Exchange", one.name())
                .header("Accept-Encoding", "gzip")
                .method(one.method(), body);
        if (!one.type().equals("-")) {
            request.header("Content-Type", one.type());
        }
        return request.build();
    }

    static void keep(Path out, Exchange one, HttpResponse<byte[]> answer) {
        try {
            String version = answer.version() == HttpClient.Version.HTTP_2 ? "2" : "1.1";
            Files.writeString(out.resolve(one.name() + ".head"), answer.statusCode() + "\n" + version + "\n");
            // Unlike the other clients, this one leaves it to the application to take off what the application asked for.
            boolean coded = answer.headers().firstValue("Content-Encoding").filter("gzip"::equals).isPresent();
            byte[] body = coded && answer.body().length > 0
                    ? new GZIPInputStream(new ByteArrayInputStream(answer.body())).readAllBytes()
                    : answer.body();
            Files.write(out.resolve(one.name() + ".body"), body);
        } catch (java.io.IOException error) {
            throw new java.io.UncheckedIOException(error);
        }
    }

    static SSLContext trusting(Path pem) throws Exception {
        KeyStore store = KeyStore.getInstance(KeyStore.getDefaultType());
        store.load(null, null);
        try (var text = Files.newInputStream(pem)) {
            store.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(text));
        }
        TrustManagerFactory trust = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trust.init(store);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, trust.getTrustManagers(), null);
        return context;
    }
}
