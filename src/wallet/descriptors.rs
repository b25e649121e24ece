//! Public descriptors: whose addresses are the wallet's, how large its inputs get, what a signer has to know.
//!
//! Guarantees: a descriptor with private keys is refused, and no text that was refused is repeated in an error;
//! a witness that was made elsewhere is taken only if each of its signatures is right and covers the whole
//! transaction. Taken are scripts that signatures alone spend and whose signing changes no txid.

use bdk_wallet::descriptor::ExtendedDescriptor;
use bdk_wallet::miniscript::descriptor::{DefiniteDescriptorKey, DescriptorPublicKey, Wildcard};
use bdk_wallet::miniscript::interpreter::{Interpreter, KeySigPair, SatisfiedConstraint};
use bdk_wallet::miniscript::psbt::PsbtInputSatisfier;
use bdk_wallet::miniscript::{Descriptor, ForEachKey, MiniscriptKey, Satisfier, ToPublicKey};
use bitcoin::key::Secp256k1;
use bitcoin::psbt::Psbt;
use bitcoin::secp256k1::{self, Verification};
use bitcoin::sighash::{EcdsaSighashType, Prevouts, TapSighashType};
use bitcoin::{Network, NetworkKind, ScriptBuf, Transaction, TxOut, Witness, ecdsa, taproot};
use thiserror::Error;

/// Why a descriptor is not taken. Its text is not repeated here: it may hold a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum BadDescriptor {
    /// Its checksum is not that of the text before it.
    #[error("its checksum is wrong: a character of it or of the text before it is mistyped")]
    Checksum,
    /// It is none.
    #[error("it cannot be read; it looks like tr([73c5da0a/86'/0'/0']xpub.../<0;1>/*), with its checksum or without")]
    Malformed,
    /// It has private keys.
    #[error("it holds private keys, which belong where they are; give the public descriptor")]
    Private,
    /// Its keys are for another network.
    #[error("its keys are for another network than {0}")]
    Network(Network),
    /// Its scripts cannot be used here.
    #[error("only tr(KEY), wpkh(KEY) and wsh(SCRIPT) that signatures alone can spend are taken")]
    Script,
    /// It does not say how addresses are derived.
    #[error("its keys do not end in /*, without hardened steps behind an extended public key")]
    Steps,
    /// There is no descriptor for change, or there are two.
    #[error("receive and change need one descriptor each: a second one, or one with <0;1> that stands for both")]
    Pair,
}

/// The public descriptors of a wallet's coins: what others pay to, and change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Descriptors {
    pub(super) receive: ExtendedDescriptor,
    pub(super) change: ExtendedDescriptor,
}

impl Descriptors {
    /// Reads two descriptors, or one with `<0;1>` that stands for both (BIP 389).
    ///
    /// # Errors
    /// [`BadDescriptor`].
    pub fn parse(receive: &str, change: Option<&str>, network: Network) -> Result<Self, BadDescriptor> {
        let receive = read(receive)?;
        let (receive, change) = match change {
            None => {
                let both = receive.into_single_descriptors().map_err(|_| BadDescriptor::Malformed)?;
                <[_; 2]>::try_from(both).map_err(|_| BadDescriptor::Pair)?.into()
            }
            Some(change) => (receive, read(change)?),
        };
        let descriptors = Self { receive, change };
        let Self { receive, change } = &descriptors;
        if receive == change || receive.is_multipath() || change.is_multipath() {
            return Err(BadDescriptor::Pair);
        }
        for descriptor in [receive, change] {
            check(descriptor, network)?;
        }
        Ok(descriptors)
    }

    /// As text with checksums: of the addresses that others pay, and of the wallet's own change.
    pub fn texts(&self) -> [String; 2] {
        [self.receive.to_string(), self.change.to_string()]
    }

    /// The largest witness of an input that spends such a coin, with placeholders for its signatures.
    pub(crate) fn placeholder(&self) -> Witness {
        let witnesses = [&self.receive, &self.change].map(|descriptor| placeholder(descriptor).unwrap_or_default());
        witnesses.into_iter().max_by_key(Witness::size).unwrap_or_default()
    }
}

fn read(text: &str) -> Result<ExtendedDescriptor, BadDescriptor> {
    let secp = Secp256k1::signing_only();
    let parsed = |text| Descriptor::parse_descriptor(&secp, text);
    let (descriptor, private) = parsed(text.trim()).map_err(|_| match text.rsplit_once('#') {
        Some((bare, _)) if parsed(bare.trim()).is_ok() => BadDescriptor::Checksum,
        _ => BadDescriptor::Malformed,
    })?;
    if private.is_empty() { Ok(descriptor) } else { Err(BadDescriptor::Private) }
}

fn check(descriptor: &ExtendedDescriptor, network: Network) -> Result<(), BadDescriptor> {
    let kind = NetworkKind::from(network);
    let is_native = match descriptor {
        Descriptor::Tr(tr) => tr.tap_tree().is_none(),
        Descriptor::Wpkh(_) | Descriptor::Wsh(_) => true,
        _ => false,
    };
    if !is_native || descriptor.sanity_check().is_err() {
        return Err(BadDescriptor::Script);
    }
    let steps = |key: &DescriptorPublicKey| match key {
        DescriptorPublicKey::XPub(key) => {
            key.wildcard == Wildcard::Unhardened && key.derivation_path.into_iter().all(|step| step.is_normal())
        }
        _ => true,
    };
    if !descriptor.has_wildcard() || !descriptor.for_each_key(steps) {
        return Err(BadDescriptor::Steps);
    }
    let is_here = |key: &DescriptorPublicKey| match key {
        DescriptorPublicKey::XPub(key) => key.xkey.network == kind,
        _ => true,
    };
    if !descriptor.for_each_key(is_here) {
        return Err(BadDescriptor::Network(network));
    }
    placeholder(descriptor).map(|_| ()).ok_or(BadDescriptor::Script)
}

/// The witness with a signature of every key; `None` if those do not suffice.
fn placeholder(descriptor: &ExtendedDescriptor) -> Option<Witness> {
    let first = descriptor.at_derivation_index(0).ok()?;
    let (stack, _) = first.get_satisfaction(AnySignature).ok()?;
    Some(Witness::from_slice(&stack))
}

/// Has a signature of every key, of the largest size that nodes relay.
struct AnySignature;

impl<K: MiniscriptKey + ToPublicKey> Satisfier<K> for AnySignature {
    fn lookup_ecdsa_sig(&self, _: &K) -> Option<ecdsa::Signature> {
        // An R that takes 33 bytes, as signers that do not grind for a smaller one make them.
        let mut compact = [1; 64];
        compact[0] = 0x80;
        let signature = secp256k1::ecdsa::Signature::from_compact(&compact).ok()?;
        Some(ecdsa::Signature { signature, sighash_type: EcdsaSighashType::All })
    }

    fn lookup_tap_key_spend_sig(&self) -> Option<taproot::Signature> {
        let signature = secp256k1::schnorr::Signature::from_slice(&[1; 64]).ok()?;
        Some(taproot::Signature { signature, sighash_type: TapSighashType::Default })
    }
}

/// Why an input of a PSBT cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum BadSignature {
    #[error("it is not signed, or not by enough signers")]
    Missing,
    #[error("its signature is wrong")]
    Wrong,
    #[error("its signature does not cover the whole transaction")]
    Partial,
}

/// The witness of input `n` out of what signers put into `psbt`.
pub(crate) fn witness(
    descriptor: &Descriptor<DefiniteDescriptorKey>,
    psbt: &Psbt,
    n: usize,
) -> Result<Witness, BadSignature> {
    if let Some(witness) = psbt.inputs.get(n).and_then(|input| input.final_script_witness.clone()) {
        return Ok(witness);
    }
    let satisfied = descriptor.get_satisfaction(PsbtInputSatisfier::new(psbt, n));
    satisfied.map(|(stack, _)| Witness::from_slice(&stack)).map_err(|_| BadSignature::Missing)
}

/// Whether `witness` spends output `n` of `spent` by `tx`, by signatures of all of it.
pub(crate) fn check_witness<C: Verification>(
    secp: &Secp256k1<C>,
    tx: &Transaction,
    n: usize,
    spent: &[TxOut],
    witness: &Witness,
) -> Result<(), BadSignature> {
    let (input, output) = tx.input.get(n).zip(spent.get(n)).ok_or(BadSignature::Missing)?;
    let no_script = ScriptBuf::new();
    let interpreter =
        Interpreter::from_txdata(&output.script_pubkey, &no_script, witness, input.sequence, tx.lock_time);
    let interpreter = interpreter.map_err(|_| BadSignature::Wrong)?;
    for satisfied in interpreter.iter(secp, tx, n, &Prevouts::All(spent)) {
        let covers_all = match satisfied.map_err(|_| BadSignature::Wrong)? {
            SatisfiedConstraint::PublicKey { key_sig } | SatisfiedConstraint::PublicKeyHash { key_sig, .. } => {
                match key_sig {
                    KeySigPair::Ecdsa(_, signature) => signature.sighash_type == EcdsaSighashType::All,
                    KeySigPair::Schnorr(_, signature) => {
                        matches!(signature.sighash_type, TapSighashType::Default | TapSighashType::All)
                    }
                }
            }
            _ => true,
        };
        if !covers_all {
            return Err(BadSignature::Partial);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ";
    const OTHER: &str = "xpub6CatWdiZiodmUeTDp8LT5or8nmbKNcuyvz7WyksVFkKB4RHwCD3XyuvPEbvqAQY3rAPshWcMLoP2fMFMKHPJ4ZeZXYVUhLv1VMrjPC7PW6V";
    const SECRET: &str = "xprv9xgqHN7yz9MwCkxsBPN5qetuNdQSUttZNKw1dcYTV4mkaAFiBVGQziHs3NRSWMkCzvgjEe3n9xV8oYywvM8at9yRqyaZVz6TYYhX98VjsUk";

    fn parse(receive: &str, change: Option<&str>) -> Result<Descriptors, BadDescriptor> {
        Descriptors::parse(receive, change, Network::Bitcoin)
    }

    #[test]
    fn one_with_two_paths_stands_for_two_and_checksums_are_checked() {
        let both = parse(&format!("tr([73c5da0a/86'/0'/0']{KEY}/<0;1>/*)"), None).expect("a pair");
        let [receive, change] = both.texts();
        assert_eq!(parse(&receive, Some(&change)), Ok(both));
        // Vectors of BIP86.
        let script = |text: &str| {
            let descriptor = read(text).expect("read").at_derivation_index(0).expect("an index");
            descriptor.script_pubkey().to_hex_string()
        };
        assert_eq!(script(&receive), "5120a60869f0dbcf1dc659c9cecbaf8050135ea9e8cdc487053f1dc6880949dc684c");
        assert_eq!(script(&change), "5120882d74e5d0572d5a816cef0041a96b6c1de832f6f9676d9605c44d5e9a97d3dc");
        let wrong = receive.replace("/0/*", "/2/*");
        assert_eq!(parse(&wrong, Some(&change)), Err(BadDescriptor::Checksum), "another checksum");
    }

    #[test]
    fn what_cannot_be_used_is_refused_and_not_repeated() {
        let change = format!("tr({KEY}/1/*)");
        let pair = |receive: String| parse(&receive, Some(&change));
        for (receive, expected) in [
            (format!("tr({SECRET}/0/*)"), BadDescriptor::Private),
            (format!("tr({SECRET}/0/*"), BadDescriptor::Malformed),
            (format!("tr({}/0/*)", SECRET.to_uppercase()), BadDescriptor::Malformed),
            (String::new(), BadDescriptor::Malformed),
            (format!("tr({KEY}/0/7)"), BadDescriptor::Steps),
            (format!("tr({KEY}/0/*h)"), BadDescriptor::Steps),
            (format!("pkh({KEY}/0/*)"), BadDescriptor::Script),
            (format!("sh(wpkh({KEY}/0/*))"), BadDescriptor::Script),
            (format!("tr({KEY}/0/*,pk({OTHER}/0/*))"), BadDescriptor::Script),
            (format!("wsh(and_v(v:pk({KEY}/0/*),older(10)))"), BadDescriptor::Script),
            (change.clone(), BadDescriptor::Pair),
            (format!("tr({KEY}/<0;1>/*)"), BadDescriptor::Pair),
        ] {
            let refused = pair(receive.clone()).expect_err(&receive);
            assert_eq!(refused, expected, "{receive}");
            let told = format!("{refused} {refused:?}");
            assert!(!told.contains(&SECRET[4..20]) && !told.contains(&KEY[4..20]) && !told.contains('\n'), "{told}");
        }
        let alone = format!("tr({KEY}/0/*)");
        assert_eq!(parse(&alone, None), Err(BadDescriptor::Pair));
        let three = format!("tr({KEY}/<0;1;2>/*)");
        assert_eq!(parse(&three, None), Err(BadDescriptor::Pair));
        let elsewhere = Descriptors::parse(&alone, Some(&change), Network::Regtest);
        assert_eq!(elsewhere, Err(BadDescriptor::Network(Network::Regtest)));
    }

    #[test]
    fn placeholders_are_as_large_as_signatures_get() {
        // Count, length and 64 bytes; count and two items of 72 and 33 bytes; count, nothing, two signatures, script.
        for (script, size) in [
            (format!("tr({KEY}/<0;1>/*)"), 1 + 65),
            (format!("wpkh({KEY}/<0;1>/*)"), 1 + 73 + 34),
            (format!("wsh(sortedmulti(2,{KEY}/<0;1>/*,{OTHER}/<0;1>/*))"), 1 + 1 + 2 * 73 + 1 + 71),
            (format!("wsh(or_d(pk({KEY}/<0;1>/*),and_v(v:pkh({OTHER}/<0;1>/*),older(10))))"), 1 + 73 + 1 + 65),
        ] {
            assert_eq!(parse(&script, None).expect(&script).placeholder().size(), size, "{script}");
        }
    }
}
