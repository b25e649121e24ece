//! The wallet's one secret, and every key that comes from it.
//!
//! Guarantees that words, keys and passphrases appear in no `Debug` output and in no error. With a
//! passphrase the seed file is an armored age file (<https://age-encryption.org/v1>, scrypt): the
//! `age` tool and the passphrase bring the words back without Sortie.

use super::{Descriptors, WalletError};
use age::armor::{ArmoredReader, ArmoredWriter, Format};
use age::secrecy::SecretString;
use age::{DecryptError, Decryptor, Encryptor, scrypt};
use bdk_wallet::{KeychainKind, bip39};
use bitcoin::bip32::{ChildNumber, DerivationPath, Fingerprint, Xpriv, Xpub};
use bitcoin::key::{Keypair, Secp256k1};
use bitcoin::secp256k1::{All, Verification, rand::RngCore, rand::rngs::OsRng};
use bitcoin::{Network, NetworkKind, XOnlyPublicKey};
use std::fmt;
use std::io::{Read, Write};
use std::iter;
use std::str::FromStr;

/// Purpose of the branch whose keys open envelopes: m/5825'/coin'/0'/index. No wallet spends from it
/// of its own accord, so that no wallet takes the coin of an envelope before it is revealed.
const REVEAL_PURPOSE: u32 = 5825;
/// Purpose of the coins' branch (BIP86).
const COIN_PURPOSE: u32 = 86;
/// Base-2 logarithm of scrypt's N: 128 MiB and half a second for each guess; next to nothing in unit tests.
const WORK_FACTOR: u8 = if cfg!(test) { 8 } else { 17 };
/// The most work that a seed file may ask for: 1 GiB.
const MAX_WORK_FACTOR: u8 = 20;
/// The longest seed file that is read, in bytes.
const MAX_SEED_TEXT: u64 = 4096;

/// Which of the two descriptors an output belongs to: m/86'/coin'/0'/branch/index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Branch {
    /// Addresses that others pay.
    Receive = 0,
    /// Our own change.
    Change = 1,
}

impl Branch {
    pub fn of(keychain: KeychainKind) -> Self {
        match keychain {
            KeychainKind::External => Self::Receive,
            KeychainKind::Internal => Self::Change,
        }
    }
}

/// Twelve (or more) BIP39 words: whoever knows them owns the coins. `Debug` does not show them.
#[derive(Clone, PartialEq, Eq)]
pub struct Mnemonic(bip39::Mnemonic);

impl Mnemonic {
    /// Makes twelve words from the operating system's randomness.
    pub fn generate() -> Result<Self, WalletError> {
        let mut entropy = [0; 16];
        OsRng.try_fill_bytes(&mut entropy).map_err(|_| WalletError::NoRandomness)?;
        bip39::Mnemonic::from_entropy(&entropy).map(Self).map_err(|_| WalletError::Mnemonic)
    }

    /// The words, to be shown to their owner only.
    pub fn words(&self) -> String {
        self.0.to_string()
    }
}

impl FromStr for Mnemonic {
    type Err = WalletError;

    /// Words in English, in any case, with any white space between them.
    fn from_str(words: &str) -> Result<Self, WalletError> {
        let words = words.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
        let parsed = bip39::Mnemonic::parse_in(bip39::Language::English, words);
        parsed.map(Self).map_err(|_| WalletError::Mnemonic)
    }
}

impl fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mnemonic([redacted])")
    }
}

/// What opens an encrypted seed file. `Debug` does not show it, and its memory is cleared after use.
#[derive(Clone, Debug)]
pub struct Passphrase(SecretString);

impl Passphrase {
    /// # Errors
    /// [`WalletError::EmptyPassphrase`]: that would only look like protection.
    pub fn new(text: String) -> Result<Self, WalletError> {
        if text.is_empty() { Err(WalletError::EmptyPassphrase) } else { Ok(Self(text.into())) }
    }
}

/// What the seed file holds: enough to find every coin again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct SeedFile {
    pub network: Network,
    pub birthday: u32,
    pub mnemonic: Mnemonic,
}

/// Why an encrypted seed file does not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sealed {
    WrongPassphrase,
    /// It was cut or changed.
    Damaged,
}

impl SeedFile {
    const HEAD: &str = "sortie seed 1";
    const ENCRYPTED_HEAD: &str = "-----BEGIN AGE ENCRYPTED FILE-----";

    /// Whether a seed file's text needs a passphrase.
    pub fn is_encrypted(text: &str) -> bool {
        text.starts_with(Self::ENCRYPTED_HEAD)
    }

    /// The file's text, encrypted if there is a passphrase.
    pub fn seal(&self, passphrase: Option<&Passphrase>) -> Result<String, WalletError> {
        let Some(Passphrase(secret)) = passphrase else { return Ok(self.to_text()) };
        let mut recipient = scrypt::Recipient::new(secret.clone());
        recipient.set_work_factor(WORK_FACTOR);
        let encrypt = || -> Result<Vec<u8>, Box<dyn std::error::Error>> {
            let armor = ArmoredWriter::wrap_output(Vec::new(), Format::AsciiArmor)?;
            let mut writer = Encryptor::with_recipients(iter::once(&recipient as _))?.wrap_output(armor)?;
            writer.write_all(self.to_text().as_bytes())?;
            Ok(writer.finish()?.finish()?)
        };
        let text = encrypt().ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or(WalletError::NotEncrypted)
    }

    /// Decrypts a file's text.
    pub fn unseal(text: &str, Passphrase(secret): &Passphrase) -> Result<Self, Sealed> {
        let mut identity = scrypt::Identity::new(secret.clone());
        identity.set_max_work_factor(MAX_WORK_FACTOR);
        let decryptor = Decryptor::new_buffered(ArmoredReader::new(text.as_bytes())).map_err(|_| Sealed::Damaged)?;
        let reader = decryptor.decrypt(iter::once(&identity as _)).map_err(|error| match error {
            DecryptError::DecryptionFailed | DecryptError::KeyDecryptionFailed | DecryptError::NoMatchingKeys => {
                Sealed::WrongPassphrase
            }
            _ => Sealed::Damaged,
        })?;
        let mut plain = String::new();
        reader.take(MAX_SEED_TEXT).read_to_string(&mut plain).map_err(|_| Sealed::Damaged)?;
        Self::from_text(&plain).ok_or(Sealed::Damaged)
    }

    fn to_text(&self) -> String {
        let Self { network, birthday, mnemonic } = self;
        let head = Self::HEAD;
        format!("{head}\nnetwork {network}\nbirthday {birthday}\nwords {}\n", mnemonic.words())
    }

    /// Reads a file's text that is not encrypted.
    pub fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != Self::HEAD {
            return None;
        }
        let mut field = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        Some(Self {
            network: field("network")?.parse().ok()?,
            birthday: field("birthday")?.parse().ok()?,
            mnemonic: field("words")?.parse().ok()?,
        })
    }
}

/// What anybody may know of the keys, and what watching needs: kept in the wallet's database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PublicKeys {
    pub fingerprint: Fingerprint,
    /// m/86'/coin'/0', if the wallet's coins are this seed's.
    pub coins: Option<Xpub>,
    /// m/5825'/coin'/0'
    pub reveals: Xpub,
}

impl PublicKeys {
    /// The BIP86 descriptors of the seed's coins, if they are the wallet's.
    pub fn descriptors(&self) -> Result<Option<Descriptors>, WalletError> {
        self.coins.map(|coins| bip86(self.fingerprint, &coins)).transpose()
    }

    /// The key that is both the internal key of an envelope's output and the key in its leaf.
    pub fn reveal<C: Verification>(&self, secp: &Secp256k1<C>, index: u32) -> Result<XOnlyPublicKey, WalletError> {
        let path = [ChildNumber::from_normal_idx(index)?];
        Ok(self.reveals.derive_pub(secp, &path)?.to_x_only_pub())
    }
}

/// The keys under a mnemonic on one kind of network. `Debug` shows the fingerprint only.
pub(crate) struct Keys {
    secp: Secp256k1<All>,
    master: Xpriv,
    coins: Xpriv,
    reveals: Xpriv,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keys({}, [redacted])", self.master.fingerprint(&self.secp))
    }
}

impl Keys {
    pub fn new(mnemonic: &Mnemonic, network: Network) -> Result<Self, WalletError> {
        let secp = Secp256k1::new();
        let master = Xpriv::new_master(network, &mnemonic.0.to_seed(""))?;
        let coins = master.derive_priv(&secp, &account(COIN_PURPOSE, network)?)?;
        let reveals = master.derive_priv(&secp, &account(REVEAL_PURPOSE, network)?)?;
        Ok(Self { secp, master, coins, reveals })
    }

    pub fn secp(&self) -> &Secp256k1<All> {
        &self.secp
    }

    pub fn public(&self) -> PublicKeys {
        PublicKeys {
            fingerprint: self.master.fingerprint(&self.secp),
            coins: Some(Xpub::from_priv(&self.secp, &self.coins)),
            reveals: Xpub::from_priv(&self.secp, &self.reveals),
        }
    }

    /// The BIP86 descriptors of its coins.
    pub fn descriptors(&self) -> Result<Descriptors, WalletError> {
        bip86(self.master.fingerprint(&self.secp), &Xpub::from_priv(&self.secp, &self.coins))
    }

    /// The untweaked key of a coin.
    pub fn coin(&self, branch: Branch, index: u32) -> Result<Keypair, WalletError> {
        let path = [ChildNumber::from_normal_idx(branch as u32)?, ChildNumber::from_normal_idx(index)?];
        Ok(self.coins.derive_priv(&self.secp, &path)?.to_keypair(&self.secp))
    }

    /// The secret to [`PublicKeys::reveal`].
    pub fn reveal(&self, index: u32) -> Result<Keypair, WalletError> {
        let path = [ChildNumber::from_normal_idx(index)?];
        Ok(self.reveals.derive_priv(&self.secp, &path)?.to_keypair(&self.secp))
    }
}

fn bip86(fingerprint: Fingerprint, coins: &Xpub) -> Result<Descriptors, WalletError> {
    let (coin, network) = match coins.network {
        NetworkKind::Main => (0, Network::Bitcoin),
        NetworkKind::Test => (1, Network::Regtest),
    };
    let both = format!("tr([{fingerprint}/{COIN_PURPOSE}'/{coin}'/0']{coins}/<0;1>/*)");
    Ok(Descriptors::parse(&both, None, network)?)
}

fn account(purpose: u32, network: Network) -> Result<DerivationPath, WalletError> {
    let coin = u32::from(network != Network::Bitcoin);
    Ok(DerivationPath::from(vec![
        ChildNumber::from_hardened_idx(purpose)?,
        ChildNumber::from_hardened_idx(coin)?,
        ChildNumber::from_hardened_idx(0)?,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: &str = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";

    #[test]
    fn secrets_show_in_no_debug_output() {
        let mnemonic: Mnemonic = WORDS.parse().expect("valid");
        let keys = Keys::new(&mnemonic, Network::Bitcoin).expect("keys");
        let file = SeedFile { network: Network::Bitcoin, birthday: 7, mnemonic };
        let passphrase = Passphrase::new("hunter2".into()).expect("not empty");
        let shown = format!("{keys:?} {file:?} {passphrase:?}");
        assert!(["abandon", "xprv", "hunter2"].iter().all(|secret| !shown.contains(secret)), "{shown}");
        assert!(shown.contains("73c5da0a"), "{shown}");
    }

    #[test]
    fn descriptors_are_bip86() {
        // Vectors of BIP86.
        let mnemonic: Mnemonic = WORDS.parse().expect("valid");
        let keys = Keys::new(&mnemonic, Network::Bitcoin).expect("keys");
        let [receive, _] = keys.descriptors().expect("descriptors").texts();
        assert!(receive.contains("xpub6BgBgsespWvERF3LHQu6CnqdvfEvtMcQjYrcRzx53QJjSxarj2afYWcLteoGVky7D3UKDP9QyrLprQ3VCECoY49yfdDEHGCtMMj92pReUsQ/0/*"));
        let (key, _) = keys.coin(Branch::Receive, 0).expect("key").x_only_public_key();
        assert_eq!(key.to_string(), "cc8a4bc64d897bddc5fbc2f670f7a8ba0b386779106cf1223c6fc5d7cd6fc115");
    }

    #[test]
    fn public_keys_are_those_of_the_secret_ones() {
        let keys = Keys::new(&WORDS.parse().expect("valid"), Network::Regtest).expect("keys");
        for index in [0, 1, 7, 0x7fff_ffff] {
            let (key, _) = keys.reveal(index).expect("key").x_only_public_key();
            assert_eq!(keys.public().reveal(keys.secp(), index).expect("key"), key);
        }
    }

    #[test]
    fn words_are_read_as_people_type_them_and_checked() {
        let typed = format!("  {}\n", WORDS.to_uppercase().replace(' ', "  "));
        assert_eq!(typed.parse::<Mnemonic>().expect("valid").words(), WORDS);
        let wrong = WORDS.replace("about", "abandon");
        let error = wrong.parse::<Mnemonic>().expect_err("checksum");
        assert!(!error.to_string().contains("abandon"));
    }

    #[test]
    fn generated_words_are_twelve_and_never_the_same() {
        let a = Mnemonic::generate().expect("words").words();
        assert_eq!(a.split(' ').count(), 12);
        assert_ne!(a, Mnemonic::generate().expect("words").words());
    }

    #[test]
    fn an_encrypted_seed_opens_with_its_passphrase_only_and_hides_the_words() {
        let mnemonic: Mnemonic = WORDS.parse().expect("valid");
        let file = SeedFile { network: Network::Regtest, birthday: 101, mnemonic };
        let passphrase = |text: &str| Passphrase::new(text.into()).expect("not empty");
        let text = file.seal(Some(&passphrase("correct horse"))).expect("sealed");
        assert!(SeedFile::is_encrypted(&text) && !text.contains("abandon"), "{text}");
        assert_eq!(SeedFile::unseal(&text, &passphrase("correct horse")), Ok(file.clone()));
        assert_eq!(SeedFile::unseal(&text, &passphrase("correct horsf")), Err(Sealed::WrongPassphrase));
        assert!(SeedFile::unseal(&text.replacen('A', "B", 20), &passphrase("correct horse")).is_err());
        for length in [40, 200, text.len() - 60] {
            let cut = SeedFile::unseal(&text[..length], &passphrase("correct horse"));
            assert_eq!(cut, Err(Sealed::Damaged), "{length} of {}", text.len());
        }
        assert_eq!(SeedFile::from_text(&text), None);
        assert!(!SeedFile::is_encrypted(&file.seal(None).expect("plain")));
        assert!(matches!(Passphrase::new(String::new()), Err(WalletError::EmptyPassphrase)));
    }

    #[test]
    fn the_seed_file_reads_back_and_refuses_what_it_does_not_know() {
        let mnemonic: Mnemonic = WORDS.parse().expect("valid");
        let file = SeedFile { network: Network::Regtest, birthday: 101, mnemonic };
        assert_eq!(SeedFile::from_text(&file.to_text()), Some(file.clone()));
        let cut = file.to_text();
        assert_eq!(SeedFile::from_text(&cut[..cut.len() - 20]), None);
        assert_eq!(SeedFile::from_text(&cut.replace("seed 1", "seed 2")), None);
    }
}
