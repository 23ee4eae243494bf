#!/bin/bash
set -euo pipefail
postconf -e maillog_file=/dev/stdout myhostname=mail.corpus.test mydestination=mail.corpus.test inet_interfaces=127.0.0.1 inet_protocols=ipv4 compatibility_level=3.6
postconf -e smtpd_tls_cert_file=/etc/tls/tls.pem smtpd_tls_key_file=/etc/tls/tls.key smtpd_tls_security_level=may
postconf -e 'smtpd_recipient_restrictions=check_recipient_access pcre:/etc/postfix/access,permit_mynetworks,reject' 'mynetworks=127.0.0.0/8' 'virtual_alias_maps=hash:/etc/postfix/virtual'
echo '/^blocked@/ REJECT not here' >/etc/postfix/access
echo 'alias@mail.corpus.test files' >/etc/postfix/virtual
echo "piped: |\"/usr/bin/tee /tmp/piped\"" >>/etc/aliases
postmap /etc/postfix/virtual
newaliases
postconf -MX smtp/inet
postconf -Me "127.0.0.1:$PORT/inet=127.0.0.1:$PORT inet n - y - - smtpd"
exec postfix start-fg
