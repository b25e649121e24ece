"""The ledger and opaque executors (PROTOCOL.md, section 10)."""

from . import bip340, merkle
from .manifest import LEDGER, OPAQUE, read_parameters
from .wire import U64_MAX, Malformed, Reader, tagged, u32, u64, varint

TRANSACTION_LEN = 153
SIGNED_LEN = TRANSACTION_LEN - 64
DECLARED_COST = 1


def encode_parameters(cost, fee_account, accounts):
    rows = b"".join(account + u64(balance) for account, balance in sorted(accounts.items()))
    return u32(cost) + fee_account + varint(len(accounts)) + rows


def sign_transfer(rollup_id, secret, to, amount, fee, nonce):
    head = b"\x01" + bip340.public_key(secret) + to + u64(amount) + u64(fee) + u64(nonce)
    return head + bip340.sign(secret, tagged("sortie/ledger", rollup_id + head))


class Opaque:
    """Takes every transaction, remembers nothing."""

    def __init__(self, rollup_id, parameters):
        if parameters:
            raise Malformed("the opaque executor has no parameters")

    def execute(self, tx, forced):
        return "ok"

    def state_root(self):
        return merkle.mth([])

    def fork(self):
        return self


class Ledger:
    def __init__(self, rollup_id, parameters):
        self.rollup_id = rollup_id
        self.cost, self.fee_account, balances = read_parameters(parameters)
        self.accounts = {account: (balance, 0) for account, balance in balances.items()}

    def fork(self):
        other = Ledger.__new__(Ledger)
        other.rollup_id, other.cost, other.fee_account = self.rollup_id, self.cost, self.fee_account
        other.accounts = dict(self.accounts)
        return other

    def state_root(self):
        rows = sorted((a, s) for a, s in self.accounts.items() if s != (0, 0))
        return merkle.mth([account + u64(balance) + u64(nonce) for account, (balance, nonce) in rows])

    def execute(self, tx, forced):
        """'ok', or the reason why nothing happened."""
        if len(tx) != TRANSACTION_LEN or tx[0] != 1:
            return "malformed"
        if forced and DECLARED_COST > self.cost * len(tx):
            return "unpaid_cost"
        reader = Reader(tx[1:])
        source, target = reader.take(32), reader.take(32)
        amount, fee, nonce, signature = reader.u64(), reader.u64(), reader.u64(), reader.take(64)
        if bip340.lift_x(source) is None:
            return "bad_key"
        if not bip340.verify(source, tagged("sortie/ledger", self.rollup_id + tx[:SIGNED_LEN]), signature):
            return "bad_signature"
        balance, expected = self.accounts.get(source, (0, 0))
        if nonce != expected or nonce == U64_MAX:
            return "bad_nonce"
        if amount + fee > balance:
            return "insufficient_balance"
        after = {source: (balance - amount - fee, nonce + 1)}
        for account, gain in ((target, amount), (self.fee_account, fee)):
            held, used = after.get(account) or self.accounts.get(account, (0, 0))
            if held + gain > U64_MAX:
                return "overflow"
            after[account] = (held + gain, used)
        self.accounts.update(after)
        return "ok"


def start(manifest, rollup_id):
    """The executor at genesis, or None for one that this program does not have."""
    kind = {OPAQUE: Opaque, LEDGER: Ledger}.get(manifest.executor)
    return kind(rollup_id, manifest.parameters) if kind else None
