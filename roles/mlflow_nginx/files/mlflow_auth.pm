package mlflow_auth;

# Remembers in a worker's memory which Authorization headers nginx has checked, so that a strong password hash is computed once
# and not for every request. nginx itself does the check, with auth_basic; this only tells it when it may be skipped.
#
# Kept is HMAC-SHA256(random key of this nginx, Authorization header and state of the password file): it is never written
# anywhere, cannot be reversed, and matches nothing after any change to the password file. Refusals are not kept.

use strict;
use warnings;
use Digest::SHA qw(hmac_sha256);
use Time::HiRes qw(stat);

my $max_entries = 4096;       # in each of the two tables, per worker
my %good_until;               # digest => when it is forgotten
my $failures_allowed = 2;     # wrong passwords to one worker that make an address a suspect,
my $suspect_seconds = 600;    # for so long after the last one
my %failures;                 # address => {count, forgiven_at}
my $hmac_key = do {
    open my $random, '<:raw', '/dev/urandom' or die "mlflow_auth: $!";
    read($random, my $bytes, 32) == 32 or die "mlflow_auth: $!";
    $bytes;
};

# $mlops_mlflow_auth_digest: of the header that the client sent and of the password file as it is before the check. Empty without either.
sub digest {
    my $request = shift;
    my $header = $request->header_in('Authorization') // return '';
    my @password_file = stat $request->variable('mlops_mlflow_auth_file') or return '';
    my @state = @password_file[0, 1, 7, 9, 10];   # device, inode, size, mtime, ctime
    return unpack 'H*', hmac_sha256(join("\0", @state, $header), $hmac_key);
}

# $mlops_mlflow_auth_realm, for auth_basic: "off" for a header that was found good before.
sub realm {
    my $request = shift;
    my $digest = $request->variable('mlops_mlflow_auth_digest');
    return 'off' if $digest ne '' and ($good_until{$digest} // 0) > time;
    return $request->variable('mlops_mlflow_auth_name');
}

# The address of a client; of IPv6, the network.
sub client_address {
    my $request = shift;
    return substr $request->variable('binary_remote_addr'), 0, 8;
}

# The address of a request for which nginx computes a hash; empty where it computes none.
sub hashing_address {
    my $request = shift;
    return '' if $request->variable('mlops_mlflow_auth_realm') eq 'off' or ($request->header_in('Authorization') // '') eq '';
    return client_address($request);
}

sub is_suspect {
    my $address = shift;
    my $failed = $failures{$address} // return 0;
    return $failed->{count} >= $failures_allowed && $failed->{forgiven_at} > time;
}

# $mlops_mlflow_auth_attempt, for limit_req: the address of a client that tries a password and is no suspect.
sub attempt {
    my $address = hashing_address(shift);
    return is_suspect($address) ? '' : $address;
}

# $mlops_mlflow_auth_suspect, for limit_req: the same for all suspects.
sub suspect {
    return is_suspect(hashing_address(shift)) ? 'all' : '';
}

# $mlops_mlflow_auth_counted: evaluate it when the answer is known, as access_log does. Counts wrong passwords; its value is 1.
sub counted {
    my $request = shift;
    my $address = $request->variable('status') eq '401' ? hashing_address($request) : '';
    if ($address ne '') {
        %failures = () if !exists $failures{$address} and keys %failures >= $max_entries;
        my $failed = $failures{$address} //= {count => 0, forgiven_at => 0};
        $failed->{count} = 0 if $failed->{forgiven_at} <= time;
        $failed->{count}++;
        $failed->{forgiven_at} = time + $suspect_seconds;
    }
    return 1;
}

# $mlops_mlflow_auth_good: evaluate it only where auth_basic has accepted the request. Remembers the header; its value is empty.
sub good {
    my $request = shift;
    my $digest = $request->variable('mlops_mlflow_auth_digest');
    return '' if $digest eq '';
    if (!exists $good_until{$digest}) {
        %good_until = () if keys %good_until >= $max_entries;
        delete $failures{client_address($request)};   # a user who mistyped
    }
    $good_until{$digest} = time + $request->variable('mlops_mlflow_auth_seconds');
    return '';
}

1;
