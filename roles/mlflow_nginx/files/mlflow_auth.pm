package mlflow_auth;

# Remembers in a worker's memory which Authorization headers nginx has checked, so that a strong password hash is computed once
# and not for every request. nginx itself does the check, with auth_basic; this only tells it when it may be skipped.
#
# Kept is HMAC-SHA256(random key of this nginx, Authorization header and state of the password file): nothing of it is written
# anywhere, it can't be turned back, and after any change of the password file it matches nothing. Refusals are not kept.

use strict;
use warnings;
use Digest::SHA qw(hmac_sha256);
use Time::HiRes qw(stat);

my $MAX = 4096;     # headers remembered per worker, one for each user and password
my %until;          # digest => when it is forgotten
my $FREE = 2;       # wrong passwords, to one worker, after which an address is a suspect,
my $GRUDGE = 600;   # for so many seconds after the last one
my %wrong;          # address => [how many it sent, when it is forgiven]
my $key = do {
    open my $random, '<:raw', '/dev/urandom' or die "mlflow_auth: $!";
    read($random, my $bytes, 32) == 32 or die "mlflow_auth: $!";
    $bytes;
};

# $mlops_mlflow_auth_digest: of what the client sent, and of the password file as it is before the check. Empty without either.
sub digest {
    my $r = shift;
    my $sent = $r->header_in('Authorization') // return '';
    my @file = stat $r->variable('mlops_mlflow_auth_file') or return '';
    return unpack 'H*', hmac_sha256(join("\0", @file[0, 1, 7, 9, 10], $sent), $key);   # device, inode, size, mtime, ctime
}

# $mlops_mlflow_auth_realm, for auth_basic: "off" for a header that was found good before.
sub realm {
    my $r = shift;
    my $digest = $r->variable('mlops_mlflow_auth_digest');
    return 'off' if $digest ne '' and ($until{$digest} // 0) > time;
    return $r->variable('mlops_mlflow_auth_name');
}

# The address of a client; of IPv6, the network.
sub address { return substr $_[0]->variable('binary_remote_addr'), 0, 8 }

# The address of a request that will make nginx compute a hash. Empty: it will not.
sub computes {
    my $r = shift;
    return '' if $r->variable('mlops_mlflow_auth_realm') eq 'off' or ($r->header_in('Authorization') // '') eq '';
    return address($r);
}

sub suspected {
    my ($count, $forgiven) = @{$wrong{$_[0]} // [0, 0]};
    return $count >= $FREE && $forgiven > time;
}

# $mlops_mlflow_auth_attempt, for limit_req: the address of whoever tries a password, and is no suspect.
sub attempt {
    my $address = computes(shift);
    return suspected($address) ? '' : $address;
}

# $mlops_mlflow_auth_suspect, for limit_req: the same for all suspects.
sub suspect {
    return suspected(computes(shift)) ? 'all' : '';
}

# $mlops_mlflow_auth_counted: evaluate it when the answer is known, as access_log does. Counts wrong passwords; its value is 1.
sub counted {
    my $r = shift;
    my $address = $r->variable('status') eq '401' ? computes($r) : '';
    if ($address ne '') {
        %wrong = () if !exists $wrong{$address} and keys %wrong >= $MAX;
        my $entry = $wrong{$address} //= [0, 0];
        $entry->[0] = 0 if $entry->[1] <= time;
        $entry->[0]++;
        $entry->[1] = time + $GRUDGE;
    }
    return 1;
}

# $mlops_mlflow_auth_good: evaluate it where only requests come that auth_basic let pass. Remembers; its value is empty.
sub good {
    my $r = shift;
    my $digest = $r->variable('mlops_mlflow_auth_digest');
    return '' if $digest eq '';
    if (!exists $until{$digest}) {
        %until = () if keys %until >= $MAX;
        delete $wrong{address($r)};   # somebody who mistyped
    }
    $until{$digest} = time + $r->variable('mlops_mlflow_auth_seconds');
    return '';
}

1;
