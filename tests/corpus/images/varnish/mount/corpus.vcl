vcl 4.1;
import std;
import directors;
backend behind { .host = "127.0.0.1"; .port = "${PORT3}"; }
sub vcl_init { new all = directors.round_robin(); all.add_backend(behind); }
sub vcl_recv {
  set req.backend_hint = all.backend();
  if (req.url == "/denied") { return (synth(403, std.toupper("denied"))); }
}
sub vcl_deliver { set resp.http.X-Hits = obj.hits; }
