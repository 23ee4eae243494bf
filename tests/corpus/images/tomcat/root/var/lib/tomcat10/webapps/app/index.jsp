<%@ page pageEncoding="UTF-8" contentType="text/plain; charset=UTF-8" import="java.net.*,java.util.*,java.security.*,java.time.*,java.io.*,java.util.zip.*" %><%
String d = request.getParameter("do");
if (d == null) { out.print("hello " + System.getProperty("java.version")); }
else if (d.equals("lookup")) { try { out.print(InetAddress.getByName(request.getParameter("name")).getHostAddress()); } catch (UnknownHostException e) { out.print("unknown"); } }
else if (d.equals("digest")) { byte[] b = request.getInputStream().readAllBytes(); out.print(HexFormat.of().formatHex(MessageDigest.getInstance("SHA-256").digest(b))); }
else if (d.equals("zone")) { out.print(ZonedDateTime.of(2026, 7, 1, 0, 0, 0, 0, ZoneId.of("Europe/Paris")).toInstant()); }
else if (d.equals("text")) { out.print("straße".toUpperCase(Locale.GERMAN) + String.format(Locale.GERMAN, "%,.2f", 1234.5) + new String("ü".getBytes("IBM850"), "IBM850")); }
else if (d.equals("zip")) { ByteArrayOutputStream o = new ByteArrayOutputStream(); GZIPOutputStream g = new GZIPOutputStream(o); g.write(new byte[100000]); g.close(); out.print(new GZIPInputStream(new ByteArrayInputStream(o.toByteArray())).readAllBytes().length); }
else if (d.equals("tls")) { try { new URL("https://localhost:" + request.getParameter("port") + "/").openStream(); out.print("trusted"); } catch (javax.net.ssl.SSLHandshakeException e) { out.print("untrusted"); } }
else { throw new RuntimeException("as asked"); } %>
