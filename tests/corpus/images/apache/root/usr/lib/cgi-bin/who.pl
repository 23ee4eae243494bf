#!/usr/bin/perl
use strict;
use warnings;
use POSIX qw(strftime);
my $body = '';
read STDIN, $body, $ENV{CONTENT_LENGTH} if $ENV{CONTENT_LENGTH};
print "Content-Type: text/plain\n\n";
print strftime('%Y', gmtime), " $ENV{REQUEST_METHOD} ", length $body, " as ", scalar getpwuid($<), "\n";
