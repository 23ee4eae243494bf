#!/usr/bin/env escript
%%! -noinput
-mode(compile).
main([Port, Tls]) ->
  {ok, _} = application:ensure_all_started(inets), {ok, _} = application:ensure_all_started(ssl),
  {ok, _} = inets:start(httpd, [{port, list_to_integer(Port)}, {server_name, "x"}, {server_root, "/tmp"}, {document_root, "/srv"}, {bind_address, {127,0,0,1}}]),
  spawn_link(fun() -> {ok, L} = ssl:listen(list_to_integer(Tls), [{certfile, "/etc/tls/tls.pem"}, {keyfile, "/etc/tls/tls.key"}, {ip, {127,0,0,1}}, {reuseaddr, true}]), tls(L) end),
  io:format("~s~n", [os:cmd("echo from a shell | tr a-z A-Z")]),
  {ok, {hostent, _, _, _, _, [A|_]}} = inet:gethostbyname("some.corpus.test"), io:format("lookup ~p~n", [A]),
  io:format("hash ~p~n", [binary:encode_hex(crypto:hash(sha256, "x"))]),
  receive stop -> ok end.
tls(L) -> {ok, T} = ssl:transport_accept(L), case ssl:handshake(T) of {ok, S} -> ssl:send(S, "HTTP/1.0 200 OK\r\n\r\nover tls\n"), ssl:close(S); _ -> ok end, tls(L).
