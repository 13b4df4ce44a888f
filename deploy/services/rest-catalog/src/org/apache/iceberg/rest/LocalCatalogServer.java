// In Iceberg's own package: the server's adapter and its catalog context are package-private.
package org.apache.iceberg.rest;

import jakarta.servlet.DispatcherType;
import jakarta.servlet.FilterChain;
import jakarta.servlet.ServletException;
import jakarta.servlet.http.HttpFilter;
import jakarta.servlet.http.HttpServletRequest;
import jakarta.servlet.http.HttpServletResponse;
import java.io.IOException;
import java.lang.reflect.Method;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.UUID;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import org.eclipse.jetty.ee10.servlet.FilterHolder;
import org.eclipse.jetty.ee10.servlet.ServletContextHandler;
import org.eclipse.jetty.ee10.servlet.ServletHolder;
import org.eclipse.jetty.server.Server;

/**
 * The Iceberg project's REST catalog on the loopback address, with client credentials that expire and principals that
 * may only write their own namespaces.
 *
 * <p>Like Polaris 1.4.1 (its TokenRequestValidator) it asks for a scope, each word of it PRINCIPAL_ROLE:NAME; what Iceberg's
 * clients ask for when nobody tells them, {@code catalog}, is refused.
 *
 * <p>Environment: CATALOG_* as for RESTCatalogServer; FLOE_PORT; FLOE_TOKEN_SECONDS, the life of a token; and
 * FLOE_PRINCIPALS, entries separated by spaces: {@code id:secret:namespace,namespace}, {@code *} for all.
 */
public final class LocalCatalogServer {
  private static final Pattern SCOPE = Pattern.compile("PRINCIPAL_ROLE:\\S+( PRINCIPAL_ROLE:\\S+)*");
  private static final Pattern NAMESPACE = Pattern.compile("/v1/(?:[^/]+/)?namespaces/([^/]+).*");

  private record Principal(String id, String secret, Set<String> namespaces) {
    boolean mayWrite(String namespace) {
      return namespaces.contains("*") || namespaces.contains(namespace);
    }
  }

  private record Token(Principal principal, long expiresAt) {}

  private LocalCatalogServer() {}

  public static void main(String[] arguments) throws Exception {
    Map<String, String> configuration = new HashMap<>(RCKUtils.environmentCatalogConfig());
    Method initialize = RESTCatalogServer.class.getDeclaredMethod("initializeBackendCatalog");
    initialize.setAccessible(true);
    RESTCatalogServer.CatalogContext context =
        (RESTCatalogServer.CatalogContext) initialize.invoke(new RESTCatalogServer(configuration));

    ServletContextHandler handler = new ServletContextHandler(ServletContextHandler.NO_SESSIONS);
    handler.addServlet(new ServletHolder(new RESTCatalogServlet(new RESTServerCatalogAdapter(context))), "/*");
    handler.addFilter(new FilterHolder(new Authentication()), "/*", EnumSet.of(DispatcherType.REQUEST));
    int port = Integer.parseInt(System.getenv("FLOE_PORT"));
    Server server = new Server(new InetSocketAddress("127.0.0.1", port));
    server.setHandler(handler);
    server.start();
    server.join();
  }

  private static final class Authentication extends HttpFilter {
    private final Map<String, Principal> principals = new HashMap<>();
    private final Map<String, Token> tokens = new ConcurrentHashMap<>();
    private final long tokenSeconds = Long.parseLong(System.getenv().getOrDefault("FLOE_TOKEN_SECONDS", "3600"));

    Authentication() {
      for (String entry : System.getenv("FLOE_PRINCIPALS").trim().split("\\s+")) {
        String[] parts = entry.split(":", 3);
        principals.put(parts[0], new Principal(parts[0], parts[1], Set.copyOf(Arrays.asList(parts[2].split(",")))));
      }
    }

    @Override
    protected void doFilter(HttpServletRequest request, HttpServletResponse response, FilterChain chain)
        throws IOException, ServletException {
      String path = request.getRequestURI();
      if (path.endsWith("/oauth/tokens")) {
        issueToken(request, response);
        return;
      }
      String header = request.getHeader("Authorization");
      Token token = header != null && header.startsWith("Bearer ") ? tokens.get(header.substring(7)) : null;
      if (token == null || token.expiresAt() < System.currentTimeMillis()) {
        refuse(response, 401, "NotAuthorizedException", "Not authorized: no token, or one that has expired");
        return;
      }
      boolean reads = Set.of("GET", "HEAD").contains(request.getMethod());
      if (!reads && !token.principal().mayWrite(namespaceOf(path))) {
        refuse(response, 403, "ForbiddenException", "Principal " + token.principal().id() + " may not write there");
        return;
      }
      chain.doFilter(request, response);
    }

    private static String namespaceOf(String path) {
      Matcher matcher = NAMESPACE.matcher(path);
      return matcher.matches() ? URLDecoder.decode(matcher.group(1), StandardCharsets.UTF_8) : "";
    }

    private void issueToken(HttpServletRequest request, HttpServletResponse response) throws IOException {
      String id = request.getParameter("client_id");
      String secret = request.getParameter("client_secret");
      String header = request.getHeader("Authorization");
      if (id == null && header != null && header.startsWith("Basic ")) {
        String decoded = new String(Base64.getDecoder().decode(header.substring(6)), StandardCharsets.UTF_8);
        String[] parts = decoded.split(":", 2);
        id = parts[0];
        secret = parts.length > 1 ? parts[1] : "";
      }
      Principal principal = id == null ? null : principals.get(id);
      String scope = request.getParameter("scope");
      response.setContentType("application/json");
      if (scope == null || !SCOPE.matcher(scope).matches()) {
        response.setStatus(400);
        response.getWriter().write("{\"error\":\"invalid_scope\",\"error_description\":\"The scope is invalid\"}");
        return;
      }
      if (principal == null || !principal.secret().equals(secret)) {
        response.setStatus(401);
        response.getWriter().write(
            "{\"error\":\"unauthorized_client\",\"error_description\":\"The client is not authorized\"}");
        return;
      }
      String token = UUID.randomUUID().toString();
      tokens.put(token, new Token(principal, System.currentTimeMillis() + tokenSeconds * 1000));
      response.getWriter().write(
          "{\"access_token\":\"" + token + "\",\"token_type\":\"bearer\",\"expires_in\":" + tokenSeconds
              + ",\"issued_token_type\":\"urn:ietf:params:oauth:token-type:access_token\"}");
    }

    private static void refuse(HttpServletResponse response, int status, String type, String message)
        throws IOException {
      response.setStatus(status);
      response.setContentType("application/json");
      response.getWriter().write(
          "{\"error\":{\"message\":\"" + message + "\",\"type\":\"" + type + "\",\"code\":" + status + "}}");
    }
  }
}
