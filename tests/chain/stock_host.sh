#!/usr/bin/env bash
# Make of Debian's packages the host that the guide describes, inside a mount and a network namespace of its
# own, and run a sweep there twice: as it is, and with --apply. Called by test_stock_host.py as
#   unshare --mount --net --propagation private bash stock_host.sh WORK PROFILE LOADGEN...
# Leaves in WORK: before, between and after (digests of the configuration), the run directories, what was said.
set -euo pipefail
work=$1 profile=$2
shift 2
ip link set lo up

# nothing of the real host is written to: what daemons and loadgen change is a copy
for place in /etc /var/lib/postfix /var/spool/postfix /var/lib/amavis /var/log /run/amavis /var/lib/loadgen; do
    mkdir -p "$place" "$work/copy$place"
    cp -a "$place/." "$work/copy$place/"
    chown --reference="$place" "$work/copy$place"
    chmod --reference="$place" "$work/copy$place"
    mount --bind "$work/copy$place" "$place"
done
rm -f /var/spool/postfix/pid/* /run/amavis/*
chown amavis:amavis /run/amavis

cat >/etc/postfix/main.cf <<'END'
compatibility_level = 3.6
myhostname = mx.host.test
mydestination = $myhostname, localhost
inet_interfaces = loopback-only
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
maillog_file = /var/log/mail.log
content_filter = amavisfeed:[127.0.0.1]:10024
transport_maps = inline:{ loadgen.test=smtp:[127.0.0.1]:11026 }
relay_domains = loadgen.test
smtpd_peername_lookup = no
END
cp /usr/share/postfix/master.cf.dist /etc/postfix/master.cf
# the package's own scripts would copy /etc/resolv.conf and more into the jail
postconf -F '*/*/chroot = n'
cat >>/etc/postfix/master.cf <<'END'
amavisfeed unix    -       -       n       -       2     lmtp
    -o lmtp_data_done_timeout=1200
    -o lmtp_send_xforward_command=yes
127.0.0.1:10025 inet n    -       n       -       -     smtpd
    -o content_filter=
    -o smtpd_delay_reject=no
    -o smtpd_client_restrictions=permit_mynetworks,reject
    -o smtpd_recipient_restrictions=permit_mynetworks,reject
    -o smtpd_relay_restrictions=permit_mynetworks,reject
    -o smtpd_authorized_xforward_hosts=127.0.0.0/8
    -o receive_override_options=no_header_body_checks,no_unknown_recipient_checks,no_milters
END
# where Debian's own files say that settings belong
sed -i 's/^use strict;/&\n$myhostname = "mx.host.test";\n$DO_SYSLOG = 0;\n$LOGFILE = "\/var\/log\/amavis.log";/' /etc/amavis/conf.d/50-user
install -o amavis -g amavis -m 640 /dev/null /var/log/amavis.log

digest() { find /etc/postfix /etc/amavis -type f -print0 | sort -z | xargs -0 sha256sum; }
stop_amavisd() {
    local pid
    pid=$(cat /run/amavis/amavisd.pid)
    kill "$pid" && tail --pid="$pid" -f /dev/null
}
stop() {
    postfix stop || true
    stop_amavisd || true
}
trap stop EXIT
amavisd start
postfix start
cd "$work"
digest >before
"$@" run "$profile" --chain local --output plain >plain.out 2>&1 || echo $? >plain.exit
digest >between
"$@" run "$profile" --chain local --apply --output applied >applied.out 2>&1 || echo $? >applied.exit
digest >after
pgrep --count --parent "$(cat /run/amavis/amavisd.pid)" >children
"$@" check --write split.toml >split.out 2>&1 || echo $? >split.exit

# the same amavisd with one file for everything
stop_amavisd
cat /usr/share/amavis/conf.d/[0-9]* /etc/amavis/conf.d/[0-9]* >/etc/amavisd.conf
rm -r /etc/amavis/conf.d
amavisd -c /etc/amavisd.conf start
timeout 30 bash -c 'until (echo >/dev/tcp/127.0.0.1/10024) 2>/dev/null; do sleep 0.1; done'
"$@" check --write single.toml >single.out 2>&1 || echo $? >single.exit
