#!/bin/bash
# Real Postfix, Exim, Dovecot and proxies on 127.0.0.1, with everything that they need in one folder.
#
#   servers.sh start DIR   starts them; returns when every port answers
#   servers.sh stop DIR    ends them, also after a start that failed
#   servers.sh run DIR     start, print "ready", and stop when stdin ends: so that they end with
#                          the program that started them, however that one ends; DIR is removed
#                          then, unless ENVOI_INTEROP_KEEP is set
#
# Ports come by environment: POSTFIX_PORT_{25,587,465,LOCKSTEP,CHAIN,CLIENT,TLS12,BROKEN,LOGINS,HAPROXY,HASTY,FEW},
# EXIM_PORT_{25,587,465,FEW,STRICT}, DOVECOT_PORT_{LMTP,587} and PROXY_PORT_{SOCKS,HTTP}.
# README.md beside this file says what each of them offers and where the mail is found.
# Several may run at a time, each with its own folder and ports. Run as root.
set -euo pipefail

cache=${ENVOI_INTEROP_CACHE:-/var/cache/envoi-interop}
exim=$cache/exim/usr/sbin/exim4
wait_seconds=30

die() { echo "servers.sh: $*" >&2; exit 1; }

# Polls a command until it succeeds, or for at most so many seconds.
wait_until() {
    local deadline=$((SECONDS + $1))
    shift
    until "$@" 2>/dev/null; do
        [ $SECONDS -lt $deadline ] || return 1
        sleep 0.05
    done
}

# ---- what both servers share -------------------------------------------------------------------

# The passwords hold what breaks careless quoting: a blank, + / = of base64, and for bob also what
# is special in a URL, and a letter beyond ASCII. A colon cannot be: it ends the field in Dovecot's file.
users() {
    echo 'alice@envoi.test:dummy 123+/='
    echo 'bob@envoi.test:Grüße@1%20?#&'
}

make_certificates() {
    mkdir "$dir/tls"
    (
        cd "$dir/tls"
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 30 \
            -subj '/O=envoi tests/CN=envoi test CA' \
            -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign,cRLSign \
            -keyout ca.key -out ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj /CN=mail.envoi.test -keyout server.key -out server.csr
        # Serverauth and no CA: what a strict verifier wants to see in the last certificate.
        printf '%s\n' basicConstraints=critical,CA:FALSE keyUsage=critical,digitalSignature \
            extendedKeyUsage=serverAuth 'subjectAltName=DNS:localhost,DNS:mail.envoi.test,IP:127.0.0.1' >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -days 30 -extfile server.ext -out server.crt
        cat server.crt ca.pem >server.pem
        # The same key certified by an intermediate authority, which a server may forget to send.
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes \
            -subj '/O=envoi tests/CN=envoi test intermediate' -keyout middle.key -out middle.csr
        printf '%s\n' basicConstraints=critical,CA:TRUE keyUsage=critical,keyCertSign >middle.ext
        openssl x509 -req -in middle.csr -CA ca.pem -CAkey ca.key -days 30 -extfile middle.ext -out middle.pem
        openssl x509 -req -in server.csr -CA middle.pem -CAkey middle.key -days 30 -extfile server.ext -out chain.crt
        # A certificate that the server takes from a client.
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=client.envoi.test \
            -keyout client.key -out client.csr
        printf '%s\n' basicConstraints=critical,CA:FALSE extendedKeyUsage=clientAuth >client.ext
        openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -days 30 -extfile client.ext -out client.pem
        # Exim reads them as its own user; a key that lives for one test run needs no secrecy.
        chmod 644 server.key
    ) >"$dir/log/openssl.log" 2>&1 || { cat "$dir/log/openssl.log" >&2; die "openssl failed"; }
}

# Each server delivers as a user of its own.
make_mail_folder() { install -d -m 777 "$dir/mail/$1"; }

# ---- Dovecot: Postfix's AUTH, LMTP, and submission through Postfix -----------------------------

start_dovecot() {
    mkdir "$dir/dovecot"
    make_mail_folder dovecot
    # The last one's name is escaped in SCRAM and OAUTHBEARER (RFC 5801, 4).
    { users && echo 'x=1,y@envoi.test:=,dummy'; } | sed 's/:/:{PLAIN}/; s/$/::::::/' >"$dir/dovecot/users"
    echo 'nobody@envoi.test:::::::' >"$dir/dovecot/unknown"
    echo "full@envoi.test::$(id -u nobody):$(id -g nobody)::::userdb_quota_rule=*:bytes=1" >"$dir/dovecot/full"
    cat >"$dir/dovecot/dovecot.conf" <<CONF
base_dir = $dir/dovecot/run
state_dir = $dir/dovecot/run
instance_name = envoi
protocols = lmtp submission
listen = 127.0.0.1
hostname = mail.envoi.test
ssl = yes
ssl_cert = <$dir/tls/server.pem
ssl_key = <$dir/tls/server.key
log_path = $dir/log/dovecot.log
auth_username_chars =
auth_mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256 oauthbearer xoauth2
# A wrong password is answered at once, and costs the next login no time: tests try many.
auth_failure_delay = 0
service anvil {
  unix_listener anvil-auth-penalty {
    mode = 0
  }
}
# A token is a JWT (RFC 7519), signed with this key; nobody is asked about it.
passdb {
  driver = oauth2
  mechanisms = oauthbearer xoauth2
  args = $dir/dovecot/oauth2.conf
}
passdb {
  driver = passwd-file
  mechanisms = plain login cram-md5 scram-sha-1 scram-sha-256
  args = scheme=PLAIN username_format=%u $dir/dovecot/users
}
# Every address has a mailbox, but nobody@; that of full@ is full, which LMTP says when the message is there.
userdb {
  driver = passwd-file
  args = username_format=%u $dir/dovecot/unknown
  result_success = return-fail
}
userdb {
  driver = passwd-file
  args = username_format=%u $dir/dovecot/full
}
userdb {
  driver = static
  args = uid=nobody gid=nogroup home=/nonexistent allow_all_users=yes
}
service auth {
  unix_listener auth-smtp {
    mode = 0666
  }
}
mail_location = maildir:$dir/mail/dovecot/%u
# Nothing here must survive a power cut.
mail_fsync = never
mail_plugins = quota
plugin {
  quota = count:mailbox
  quota_vsizes = yes
}
service lmtp {
  inet_listener lmtp {
    port = $DOVECOT_PORT_LMTP
  }
  unix_listener lmtp {
    mode = 0666
  }
}
service submission-login {
  inet_listener submission {
    port = $DOVECOT_PORT_587
  }
}
submission_relay_host = 127.0.0.1
submission_relay_port = $POSTFIX_PORT_25
submission_relay_trusted = yes
CONF
    cat >"$dir/dovecot/oauth2.conf" <<CONF
introspection_mode = local
local_validation_key_dict = fs:posix:prefix=$dir/dovecot/keys/
username_attribute = sub
CONF
    mkdir -p "$dir/dovecot/keys/default/HS256"
    printf 'envoi tests' | base64 >"$dir/dovecot/keys/default/HS256/default"
    setsid dovecot -F -c "$dir/dovecot/dovecot.conf" >>"$dir/log/dovecot.log" 2>&1 </dev/null &
    echo $! >"$dir/dovecot/session"
    wait_until $wait_seconds [ -S "$dir/dovecot/run/auth-smtp" ] ||
        { cat "$dir/log/dovecot.log" >&2; die "Dovecot does not start"; }
}

# ---- Postfix -----------------------------------------------------------------------------------

start_postfix() {
    mkdir -p "$dir"/postfix/{conf,queue,data}
    chown postfix "$dir/postfix/data"
    make_mail_folder postfix
    local lib=/usr/lib/postfix/sbin
    cat >"$dir/postfix/conf/main.cf" <<CONF
compatibility_level = 3.6
queue_directory = $dir/postfix/queue
data_directory = $dir/postfix/data
daemon_directory = $lib
command_directory = /usr/sbin
maillog_file = $dir/log/postfix.log
maillog_file_prefixes = $dir
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
myhostname = mail.envoi.test
mydestination =
alias_maps =
mynetworks = 127.0.0.1/32
smtputf8_enable = yes
# Also addresses that begin with a hyphen.
allow_min_user = yes

# Every address here has a mailbox but nobody@; nothing ever leaves the machine.
virtual_mailbox_domains = envoi.test
virtual_mailbox_maps = regexp:$dir/postfix/conf/mailboxes
virtual_transport = deliver
# Found to be wrong only once the message is in the queue.
transport_maps = regexp:$dir/postfix/conf/transports
deliver_destination_recipient_limit = 1
default_transport = discard
smtpd_relay_restrictions = reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access regexp:$dir/postfix/conf/recipients

# The tests want to see what the client sent: nothing is rewritten, completed or dropped (by
# default Postfix drops Bcc), and a bare LF after DATA is refused.
local_header_rewrite_clients =
message_drop_headers =
smtpd_forbid_bare_newline = reject
smtpd_forbid_bare_newline_exclusions =

# No limit that a test could reach; no sleep after errors; no DNS.
message_size_limit = 3000000000
mailbox_size_limit = 0
smtpd_error_sleep_time = 0
smtpd_soft_error_limit = 1000
smtpd_hard_error_limit = 1000
smtpd_peername_lookup = no
disable_dns_lookups = yes

smtpd_tls_cert_file = $dir/tls/server.pem
smtpd_tls_key_file = $dir/tls/server.key
smtpd_tls_received_header = yes
smtpd_sasl_type = dovecot
smtpd_sasl_path = $dir/dovecot/run/auth-smtp
smtpd_tls_auth_only = yes
smtpd_sasl_mechanism_filter = plain, login
# The old form AUTH=PLAIN LOGIN beside the new one, as many servers still give it.
broken_sasl_auth_clients = yes
CONF
    echo '!/^nobody@/ yes' >"$dir/postfix/conf/mailboxes"
    echo '/^bounced/ error:5.1.1 No such user' >"$dir/postfix/conf/transports"
    echo '/^later@/ 450 4.2.1 Mailbox busy, try again later' >"$dir/postfix/conf/recipients"

    local auth='-o smtpd_sasl_auth_enable=yes -o smtpd_client_restrictions=permit_sasl_authenticated,reject'
    cat >"$dir/postfix/conf/master.cf" <<CONF
127.0.0.1:$POSTFIX_PORT_25 inet n - n - - smtpd
127.0.0.1:$POSTFIX_PORT_587 inet n - n - - smtpd -o syslog_name=postfix/587
    -o smtpd_tls_security_level=encrypt $auth
127.0.0.1:$POSTFIX_PORT_465 inet n - n - - smtpd -o syslog_name=postfix/465
    -o smtpd_tls_wrappermode=yes $auth
127.0.0.1:$POSTFIX_PORT_LOCKSTEP inet n - n - - smtpd -o syslog_name=postfix/lockstep
    -o smtpd_tls_security_level=encrypt $auth
    -o smtpd_discard_ehlo_keywords=silent-discard,pipelining,chunking
127.0.0.1:$POSTFIX_PORT_LOGINS inet n - n - - smtpd -o syslog_name=postfix/logins
    -o smtpd_tls_security_level=encrypt $auth
    -o smtpd_sasl_mechanism_filter=static:all
127.0.0.1:$POSTFIX_PORT_CHAIN inet n - n - - smtpd -o syslog_name=postfix/chain
    -o smtpd_tls_security_level=may
    -o smtpd_tls_cert_file=$dir/tls/chain.crt
127.0.0.1:$POSTFIX_PORT_CLIENT inet n - n - - smtpd -o syslog_name=postfix/client
    -o smtpd_tls_security_level=encrypt
    -o smtpd_tls_req_ccert=yes
    -o smtpd_tls_CAfile=$dir/tls/ca.pem
127.0.0.1:$POSTFIX_PORT_TLS12 inet n - n - - smtpd -o syslog_name=postfix/tls12
    -o smtpd_tls_security_level=encrypt
    -o smtpd_tls_mandatory_protocols=TLSv1.2
127.0.0.1:$POSTFIX_PORT_BROKEN inet n - n - - smtpd -o syslog_name=postfix/broken
    -o smtpd_tls_security_level=may
    -o smtpd_tls_protocols=TLSv1
127.0.0.1:$POSTFIX_PORT_HAPROXY inet n - n - - smtpd -o syslog_name=postfix/haproxy
    -o smtpd_upstream_proxy_protocol=haproxy
    -o smtpd_tls_security_level=may
127.0.0.1:$POSTFIX_PORT_HASTY inet n - n - - smtpd -o syslog_name=postfix/hasty
    -o smtpd_tls_security_level=may
    -o smtpd_timeout=1s
127.0.0.1:$POSTFIX_PORT_FEW inet n - n - - smtpd -o syslog_name=postfix/few
    -o smtpd_recipient_limit=3
deliver   unix - n n - - pipe flags=DORX user=nobody null_sender= argv=$dir/deliver.sh $dir/mail/postfix \${recipient}
postlog   unix-dgram n - n - 1 postlogd
pickup    unix n - n 60 1 pickup
cleanup   unix n - n - 0 cleanup
qmgr      unix n - n 300 1 qmgr
tlsmgr    unix - - n 1000? 1 tlsmgr
rewrite   unix - - n - - trivial-rewrite
bounce    unix - - n - 0 bounce
defer     unix - - n - 0 bounce
trace     unix - - n - 0 bounce
flush     unix n - n 1000? 0 flush
proxymap  unix - - n - - proxymap
anvil     unix - - n - 1 anvil
error     unix - - n - - error
retry     unix - - n - - error
discard   unix - - n - - discard
CONF
    # The same queue, for a user who may not submit mail.
    mkdir "$dir/postfix/conf-closed"
    cp "$dir"/postfix/conf/* "$dir/postfix/conf-closed"
    echo 'authorized_submit_users =' >>"$dir/postfix/conf-closed/main.cf"
    # It makes its queue's folders, goes into a session of its own and returns.
    postfix -c "$dir/postfix/conf" start >"$dir/log/postfix-start.log" 2>&1 </dev/null ||
        { cat "$dir/log/postfix-start.log" "$dir/log/postfix.log" >&2; die "Postfix does not start"; }
}

# ---- Exim --------------------------------------------------------------------------------------

start_exim() {
    install -d -o Debian-exim -g Debian-exim "$dir"/exim{,/spool,/spool-few,/spool-strict}
    # Its log folder is its own, as it opens the files as its own user.
    install -d -o Debian-exim -g Debian-exim "$dir/log/exim"
    make_mail_folder exim
    users | sed 's/:/: /' >"$dir/exim/users"
    cat >"$dir/exim/exim.conf" <<CONF
exim_path = $exim
exim_user = Debian-exim
exim_group = Debian-exim
spool_directory = $dir/exim/spool
log_file_path = $dir/log/exim/%slog
pid_file_path = $dir/exim/pid
keep_environment =
# It was started with a configuration that is not the system's: only so may its children read it too.
deliver_drop_privilege = true
never_users =

primary_hostname = mail.envoi.test
local_interfaces = <; 127.0.0.1
daemon_smtp_ports = <; $EXIM_PORT_25 ; $EXIM_PORT_587 ; $EXIM_PORT_465
tls_on_connect_ports = $EXIM_PORT_465
tls_advertise_hosts = \${if eq{\$received_port}{$EXIM_PORT_25}{}{*}}
tls_certificate = $dir/tls/server.pem
tls_privatekey = $dir/tls/server.key
auth_advertise_hosts = \${if eq{\$tls_in_cipher}{}{}{*}}
prdr_enable = true
dsn_advertise_hosts = *
smtputf8_advertise_hosts = *
# To this client it offers none.
chunking_advertise_hosts = ! 127.0.0.79 : *

# No limit that a test could reach (this one is the highest that Exim knows); no DNS, no ident.
message_size_limit = 2147483647
smtp_accept_max = 0
smtp_accept_queue_per_connection = 0
host_lookup =
rfc1413_query_timeout = 0s
# A port that is taken ends the start at once.
daemon_startup_retries = 0

# The tests want to see what the client sent: nothing is dropped.
return_path_remove = false
envelope_to_remove = false
delivery_date_remove = false

# The limit that Exim has by default, after which it answers 421 to each MAIL.
smtp_accept_max_per_connection = 1000

acl_smtp_rcpt = rcpt
acl_smtp_data = accept
acl_smtp_data_prdr = prdr
acl_not_smtp = not_smtp

begin acl
# Of the sendmail program.
not_smtp:
  deny  message = 550 5.1.1 User unknown
        condition = \${if match{\$recipients}{refused}}
  accept
rcpt:
  deny  message = 530 5.7.0 Authentication required
        condition = \${if !eq{\$received_port}{$EXIM_PORT_25}}
        !authenticated = *
  deny  message = 550 5.7.1 Relay access denied
        !domains = envoi.test
  deny  message = 550 5.1.1 <\$local_part@\$domain>: Recipient address rejected: User unknown
        local_parts = nobody
  defer message = 450 4.2.1 Mailbox busy, try again later
        local_parts = later
  # Stays in the queue: a thousand deliveries take their time.
  accept local_parts = ^queued
         control = queue
  accept
# Asked for each recipient when the message is there, if the client asks for PRDR.
prdr:
  deny  message = 550 5.7.1 No such messages
        local_parts = ^choosy
  defer message = 450 4.7.1 No such messages today
        local_parts = ^moody
  accept

begin routers
# Found to be wrong only once the message is in the queue.
bounced:
  driver = redirect
  local_parts = ^bounced
  allow_fail
  data = :fail: No such user
mailbox:
  driver = accept
  domains = envoi.test
  transport = mailbox
# Bounces and the like for elsewhere: nothing ever leaves the machine.
elsewhere:
  driver = redirect
  data = :blackhole:

begin transports
mailbox:
  driver = pipe
  # It takes the recipient from the environment: Exim lets no text of the client into a command.
  command = $dir/deliver.sh $dir/mail/exim
  # Nothing but the message and the envelope: no From_ line, no escaping of From or dots.
  message_prefix =
  message_suffix =
  return_path_add
  envelope_to_add
  batch_max = 1

begin retry
* * F,1h,1m

begin authenticators
plain:
  driver = plaintext
  public_name = PLAIN
  server_prompts = :
  server_condition = \${if eq{\$auth3}{\${lookup{\$auth2}lsearch{$dir/exim/users}}}}
  server_set_id = \$auth2
login:
  driver = plaintext
  public_name = LOGIN
  server_prompts = Username:: : Password::
  server_condition = \${if eq{\$auth2}{\${lookup{\$auth1}lsearch{$dir/exim/users}}}}
  server_set_id = \$auth1
CONF
    setsid "$exim" -C "$dir/exim/exim.conf" -bdf >"$dir/log/exim/start.log" 2>&1 </dev/null &
    echo $! >"$dir/exim/session"
    # Fewer recipients at once is a setting of the whole server.
    start_exim_that_takes_few few "$EXIM_PORT_FEW" false
    start_exim_that_takes_few strict "$EXIM_PORT_STRICT" true
}

start_exim_that_takes_few() {
    local name=$1 port=$2 reject=$3
    mkdir "$dir/exim-$name"
    sed -e "s|^daemon_smtp_ports = .*|daemon_smtp_ports = <; $port\nrecipients_max = 3\nrecipients_max_reject = $reject|" \
        -e "s|^spool_directory = .*|spool_directory = $dir/exim/spool-$name|" \
        -e "s|^pid_file_path = .*|pid_file_path = $dir/exim-$name/pid|" \
        -e "s|^tls_on_connect_ports = .*||" -e "s|$EXIM_PORT_25|$port|" "$dir/exim/exim.conf" >"$dir/exim-$name/exim.conf"
    setsid "$exim" -C "$dir/exim-$name/exim.conf" -bdf >>"$dir/log/exim/start.log" 2>&1 </dev/null &
    echo $! >"$dir/exim-$name/session"
}

# ---- Proxies: microsocks and tinyproxy -----------------------------------------------------------

start_proxies() {
    mkdir "$dir/socks" "$dir/http"
    setsid microsocks -i 127.0.0.1 -p "$PROXY_PORT_SOCKS" -u alice -P 'secret@1' >>"$dir/log/microsocks.log" 2>&1 </dev/null &
    echo $! >"$dir/socks/session"
    cat >"$dir/http/tinyproxy.conf" <<CONF
Listen 127.0.0.1
Port $PROXY_PORT_HTTP
BasicAuth alice secret1
# It leads to no other port.
ConnectPort $POSTFIX_PORT_587
CONF
    setsid tinyproxy -d -c "$dir/http/tinyproxy.conf" >>"$dir/log/tinyproxy.log" 2>&1 </dev/null &
    echo $! >"$dir/http/session"
}

# ---- start, stop -------------------------------------------------------------------------------

# Each server leads a session, and all its children stay in it.
sessions() { cat "$dir"/{dovecot,exim,exim-few,exim-strict,socks,http}/session "$dir/postfix/queue/pid/master.pid" 2>/dev/null | tr -d ' ' || true; }
all_ended() { ! pgrep --session "$1" >/dev/null; }
all_run() {
    local session
    for session in $(sessions); do kill -0 "$session" 2>/dev/null || return 1; done
}

# A greeting means more than an open port: the server has read its configuration.
greets() { (exec 3<>"/dev/tcp/127.0.0.1/$1" && IFS= read -r -t 2 line <&3 && [[ $line == 220* ]]); }
accepts() { (exec 3<>"/dev/tcp/127.0.0.1/$1"); }
handshakes() { timeout 5 openssl s_client -connect "127.0.0.1:$1" -brief </dev/null >/dev/null 2>&1; }

answers_or_died() { "$@" || ! all_run; }

wait_for() {
    local check=$1 name=$2 log
    if wait_until $wait_seconds answers_or_died "$check" "${!name}" && all_run; then return; fi
    for log in "$dir"/log/*.log "$dir"/log/exim/*log; do tail -n 20 "$log" >&2; done
    all_run || die "a server ended while it started (see above)"
    die "$name (${!name}) does not answer"
}

start() {
    [ "$(id -u)" = 0 ] || die "must run as root"
    local name
    for name in "$exim" postfix dovecot openssl microsocks tinyproxy; do
        command -v "$name" >/dev/null || die "no $name: run install.sh first"
    done
    for name in POSTFIX_PORT_{25,587,465,LOCKSTEP,LOGINS,HAPROXY,HASTY,FEW} EXIM_PORT_{25,587,465,FEW,STRICT} DOVECOT_PORT_{LMTP,587} \
        PROXY_PORT_{SOCKS,HTTP}; do
        [ -n "${!name:-}" ] || die "$name is not set"
    done
    # The path of a Unix socket has room for 107 bytes.
    [ ${#dir} -le 70 ] || die "the path of the folder is too long: $dir"
    mkdir -p "$dir"
    [ -z "$(ls "$dir")" ] || die "not an empty folder: $dir"
    # The servers run as users of their own, and all of them must get at their files.
    chmod 755 "$dir"
    setpriv --reuid nobody --clear-groups test -x "$dir" -a -x "$exim" ||
        die "other users cannot get into $dir or $cache; choose a folder below /tmp"

    # A start that fails half way, or is killed, leaves no process either; its logs stay.
    trap stop EXIT
    mkdir "$dir/log" "$dir/mail"
    # A copy: the checkout may be where only root can read.
    install -m 755 "$(dirname "$0")/deliver.sh" "$dir/deliver.sh"
    make_certificates
    start_dovecot
    start_postfix
    start_exim
    start_proxies
    for name in POSTFIX EXIM; do
        wait_for greets ${name}_PORT_25
        wait_for greets ${name}_PORT_587
        wait_for handshakes ${name}_PORT_465
    done
    wait_for greets POSTFIX_PORT_LOCKSTEP
    wait_for greets POSTFIX_PORT_LOGINS
    wait_for greets EXIM_PORT_FEW
    wait_for greets EXIM_PORT_STRICT
    wait_for greets DOVECOT_PORT_LMTP
    wait_for greets DOVECOT_PORT_587
    wait_for accepts PROXY_PORT_SOCKS
    wait_for accepts PROXY_PORT_HTTP
}

stop() {
    local session
    for session in $(sessions); do pkill -TERM --session "$session" || true; done
    for session in $(sessions); do
        wait_until 5 all_ended "$session" || pkill -KILL --session "$session" || true
        wait_until 5 all_ended "$session" || die "cannot end session $session"
    done
    # A second stop must not meet a foreign process that has got the old number.
    rm -f "$dir"/{dovecot,exim,exim-few,exim-strict,socks,http}/session "$dir/postfix/queue/pid/master.pid"
}

run() {
    # Ctrl-C at a terminal goes to the whole group; the end of stdin comes after it.
    trap '' INT
    start
    echo ready
    cat >/dev/null
    trap - EXIT
    stop
    if [ -z "${ENVOI_INTEROP_KEEP:-}" ]; then rm -rf "$dir"; fi
}

[ $# = 2 ] || die "usage: servers.sh start|stop|run DIR"
dir=$(realpath -m "$2")
umask 022
case $1 in
    start)
        start
        trap - EXIT
        ;;
    stop) stop ;;
    run) run ;;
    *) die "usage: servers.sh start|stop|run DIR" ;;
esac
