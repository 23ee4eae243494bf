#!/bin/bash
printf 'Content-Type: text/plain\r\n\r\n'
echo "$REQUEST_METHOD as $(id -un) on $(uname -s): $(wc -c)"
