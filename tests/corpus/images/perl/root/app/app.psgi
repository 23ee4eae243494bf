use strict;
use warnings;
use utf8;
use Compress::Zlib ();
use DBI;
use Digest::SHA;
use Encode ();
use File::Temp;
use IO::Socket::SSL;
use JSON::XS;
use POSIX qw(strftime);
use Plack::Request;
use Socket qw(getaddrinfo inet_ntoa unpack_sockaddr_in AF_INET SOCK_STREAM);
use Time::HiRes qw(sleep);

my %routes = (
    '/' => sub { 'hello ' . getpwuid($<) },
    '/database' => sub {
        my $database = DBI->connect('dbi:SQLite:dbname=:memory:', '', '', { RaiseError => 1 });
        $database->do('CREATE TABLE t (n INTEGER)');
        $database->do('INSERT INTO t VALUES (?)', undef, $_) for 1 .. 10;
        ($database->selectrow_array('SELECT sum(n) FROM t'))[0];
    },
    '/json' => sub { encode_json(decode_json($_[0]->content)->{list}) },
    '/digest' => sub {
        my $file = File::Temp->new;
        print $file $_[0]->content;
        close $file;
        Digest::SHA->new(256)->addfile($file->filename)->hexdigest;
    },
    '/lookup' => sub {
        my ($error, $found) = getaddrinfo($_[0]->param('name'), 80, { family => AF_INET, socktype => SOCK_STREAM });
        die [502, "$error"] if $error;
        inet_ntoa((unpack_sockaddr_in($found->{addr}))[1]);
    },
    '/tls' => sub {
        my ($host, $port) = split /:/, $_[0]->param('to');
        my $socket = IO::Socket::SSL->new(PeerHost => $host, PeerPort => $port, SSL_verify_mode => 0, Timeout => 5)
            or die [502, "$SSL_ERROR"];
        print $socket "GET / HTTP/1.0\r\n\r\n";
        join '', <$socket>;
    },
    '/zipped' => sub { length Compress::Zlib::memGunzip(Compress::Zlib::memGzip('x' x 100000)) },
    '/date' => sub { sleep 0.01; strftime('%Y-%m-%d', gmtime 0) },
    '/unicode' => sub { Encode::encode('UTF-8', uc 'straße ä') },
    '/fork' => sub { my $pid = fork // die; POSIX::_exit(3) if !$pid; waitpid $pid, 0; $? >> 8 },
    '/error' => sub { die "as asked\n" },
);

sub {
    my $request = Plack::Request->new(shift);
    my $route = $routes{ $request->path } or return [404, [], ['none']];
    my $text = eval { $route->($request) };
    if (my $error = $@) {
        return [$error->[0], [], [$error->[1]]] if ref $error;
        warn $error;
        return [500, [], [$error]];
    }
    return [200, ['Content-Type' => 'text/plain'], [$text]];
};
