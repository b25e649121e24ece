use super::*;
use crate::args::Cli;
use clap::Parser;

fn flags(arguments: &[&str]) -> Globals {
    Cli::parse_from([&["sortie"], arguments, &["scan"]].concat()).globals
}

fn settings(arguments: &[&str], file: &str) -> Settings {
    let file = ConfigFile::parse(Path::new("/etc/sortie/sortie.toml"), file).expect("a settings file");
    Settings::merge(flags(arguments), Given::default(), None, file, Some("/default".into())).expect("settings")
}

#[test]
fn a_flag_wins_over_the_file_and_the_file_over_the_default() {
    let file = "network = 'signet'\ndata_dir = '/file'\nfinality_depth = 9\nconfirmations = 2\n";
    let default = settings(&[], "");
    assert_eq!(default.network_without_manifest(), Network::Bitcoin);
    assert_eq!(default.data_dir(), Path::new("/default"));
    assert_eq!((default.finality_depth(), default.confirmations(Network::Bitcoin)), (6, 3));
    assert_eq!(default.confirmations(Network::Regtest), 1);

    let from_file = settings(&[], file);
    assert_eq!(from_file.network_without_manifest(), Network::Signet);
    assert_eq!(from_file.data_dir(), Path::new("/file"));
    assert_eq!((from_file.finality_depth(), from_file.confirmations(Network::Regtest)), (9, 2));

    let from_flags = settings(
        &["--network", "regtest", "--data-dir", "/flag", "--finality-depth", "4", "--confirmations", "5"],
        file,
    );
    assert_eq!(from_flags.network_without_manifest(), Network::Regtest);
    assert_eq!(from_flags.data_dir(), Path::new("/flag"));
    assert_eq!((from_flags.finality_depth(), from_flags.confirmations(Network::Regtest)), (4, 5));
}

#[test]
fn a_node_on_the_command_line_wins_over_servers_in_the_file() {
    let file = "esplora_url = 'https://one/api'\nproxy = 'socks5h://127.0.0.1:9050'\n";
    assert_eq!(settings(&[], file).servers(), ["https://one/api"]);
    assert!(settings(&["--bitcoin-url", "http://127.0.0.1:8332"], file).servers().is_empty());
    let flags =
        ["--esplora-url", "http://two", "--esplora-url", "http://three", "--bitcoin-url", "http://127.0.0.1:8332"];
    assert_eq!(settings(&flags, file).servers(), ["http://two", "http://three"]);
    assert_eq!(settings(&[], "esplora_url = ['http://a', 'http://b']").servers(), ["http://a", "http://b"]);
}

#[test]
fn with_a_proxy_a_node_elsewhere_is_refused() {
    let file = "proxy = 'socks5h://127.0.0.1:1'\n";
    let login = ["--bitcoin-cookie", "/c", "--bitcoin-url"];
    let refused = |url| settings(&[&login[..], &[url]].concat(), file).connect(Network::Bitcoin).expect_err(url);
    assert!(refused("http://node.invalid:8332").to_string().contains("--proxy"));
    // This one is on this machine; only its cookie is not there.
    assert!(refused("http://127.0.0.1:1").to_string().contains("cookie"));
}

#[test]
fn credentials_come_whole_from_one_layer() {
    let file = "bitcoin_user = 'u'\nbitcoin_password = 'p'\n";
    let from_file = settings(&[], file).credentials().expect("complete");
    assert!(matches!(from_file, Some(Credentials::UserPassword { user, .. }) if user == "u"));
    let from_flags = settings(&["--bitcoin-cookie", "/c"], file).credentials().expect("complete");
    assert!(matches!(from_flags, Some(Credentials::Cookie(path)) if path == Path::new("/c")));
    assert!(settings(&["--bitcoin-user", "v"], "").credentials().is_err(), "a user without a password");
    assert!(matches!(settings(&[], "").credentials(), Ok(None)));
}

#[test]
fn a_bad_settings_file_is_refused_with_the_line() {
    for (text, expected) in [
        ("proxy = 'socks5://127.0.0.1:9050'", "sortie.toml:1: the proxy is not usable"),
        ("network = 'regtest'\n\nnetwrok = 1\n", "sortie.toml:3: unknown field `netwrok`"),
        ("network = 'main'\n", "sortie.toml:1: network `main`: expected bitcoin, signet"),
        ("confirmations = 'x'\n", "sortie.toml:1:"),
        ("\nmax_fee_rate = 'fast'\n", "sortie.toml:2:"),
        ("finality_depth = 0\n", "1 or more"),
        ("= 3", "sortie.toml:1:"),
    ] {
        let error = ConfigFile::parse(Path::new("sortie.toml"), text).expect_err(text).to_string();
        assert!(error.contains(expected), "{text}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
}

#[test]
fn paths_in_the_file_are_relative_to_it() {
    let file = ConfigFile::parse(Path::new("/etc/sortie/sortie.toml"), "manifest = 'm.toml'\ndata_dir = '/d'\n");
    let file = file.expect("a settings file");
    assert_eq!(file.manifest.as_deref(), Some(Path::new("/etc/sortie/m.toml")));
    assert_eq!(file.data_dir.as_deref(), Some(Path::new("/d")));
}

#[test]
fn caps_are_the_flags_then_the_files_then_defaults() {
    let rate = |text: &str| Some(text.parse::<SatPerVb>().expect("a rate").0);
    let none = Fees::default();
    let default = Caps { max_fee_rate: rate("1000"), max_fee: Some(DEFAULT_MAX_FEE) };
    assert_eq!(settings(&[], "").caps(&none), default);
    assert_eq!(settings(&[], "").caps_of_batches(&none), Caps { max_fee: None, ..default });
    let asked = Fees { fee_rate: rate("2").map(SatPerVb), ..Fees::default() };
    assert_eq!(settings(&[], "").caps_of_bump(&none), default);
    assert_eq!(settings(&[], "").caps_of_bump(&asked), Caps { max_fee_rate: rate("6"), ..default });
    let said = Fees { max_fee: Some(300_000), ..asked };
    assert_eq!(settings(&[], "").caps_of_bump(&said), settings(&[], "").caps(&said));
    let file = settings(&[], "max_fee_rate = 2.5\nmax_fee = 700\n");
    assert_eq!(file.caps(&none), Caps { max_fee_rate: rate("2.5"), max_fee: Some(Amount::from_sat(700)) });
    let fees = Fees { max_fee: Some(9), max_fee_rate: rate("3").map(SatPerVb), ..Fees::default() };
    assert_eq!(file.caps(&fees), Caps { max_fee_rate: rate("3"), max_fee: Some(Amount::from_sat(9)) });
}

#[test]
fn a_wallets_name_stays_in_its_folder() {
    let settings = settings(&[], "wallet = 'savings'\n");
    let dir = |name: Option<&str>| {
        settings
            .wallet_dir(Network::Regtest, &WalletName { wallet: name.map(Into::into) })
            .map(|dir| dir.display().to_string())
    };
    assert_eq!(dir(None).expect("a folder"), "/default/regtest/wallets/savings");
    assert_eq!(dir(Some("a-1")).expect("a folder"), "/default/regtest/wallets/a-1");
    for bad in ["", ".", "..", "../x", "a/b", ".hidden", "/abs"] {
        assert!(dir(Some(bad)).is_err(), "{bad}");
    }
}

/// A folder that came from somebody, and what holds in it.
fn in_folder(folder: &Path, text: &str) -> Result<ConfigFile, Failure> {
    let path = folder.join("sortie.toml");
    std::fs::write(&path, text).expect("a file");
    let own = ConfigFile::parse(Path::new("/home/me/.config/sortie/sortie.toml"), "wallet = 'mine'\nmanifest = 'm'\n");
    own.expect("settings").in_folder(&path, Some(Path::new("/home/me/.config/sortie/sortie.toml")))
}

#[test]
fn a_folder_names_its_manifest_and_the_network_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("rollup.toml"), "").expect("a file");
    let file = in_folder(folder.path(), "manifest = 'rollup.toml'\nnetwork = 'regtest'\n").expect("allowed");
    assert_eq!(file.manifest, Some(folder.path().join("rollup.toml")));
    assert_eq!((file.network, file.wallet.as_deref()), (Some(Network::Regtest), Some("mine")));
    let file = in_folder(folder.path(), "").expect("allowed");
    assert_eq!(file.manifest.as_deref(), Some(Path::new("/home/me/.config/sortie/m")), "the user's own");

    for key in [
        "data_dir",
        "bitcoin_url",
        "bitcoin_cookie",
        "bitcoin_user",
        "bitcoin_password",
        "source",
        "blocks_dir",
        "verify_all_blocks",
        "max_reorg_depth",
        "passphrase_file",
        "esplora_url",
        "broadcast_url",
        "proxy",
        "confirmations",
        "finality_depth",
        "wallet",
        "max_fee",
        "max_fee_rate",
        "fallback_fee_rate",
        "lock_at_most",
        "unheard_of",
    ] {
        for text in [format!("{key} = 'x'"), format!("network = 'regtest'\n[{key}]\nx = 1"), format!("{key}.x = 1")] {
            let failure = in_folder(folder.path(), &text).expect_err("refused");
            assert_eq!(failure.code(), Some(crate::failure::Code::Refused), "{text}");
            let said = failure.to_string();
            assert!(said.contains(key) && said.contains("/home/me/.config/sortie/sortie.toml"), "{said}");
        }
    }
}

#[test]
fn a_folder_names_no_manifest_outside_of_it() {
    let (folder, elsewhere) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let outside = elsewhere.path().join("id_ed25519");
    std::fs::write(&outside, "secret").expect("a file");
    std::os::unix::fs::symlink(&outside, folder.path().join("link.toml")).expect("a link");
    std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("sub")).expect("a link");
    let name = elsewhere.path().file_name().expect("a name").to_string_lossy().into_owned();
    let absolute = outside.display().to_string();
    let relative = format!("../{name}/id_ed25519");
    for manifest in [&absolute, &relative, "link.toml", "sub/id_ed25519", "/dev/zero", "."] {
        let failure = in_folder(folder.path(), &format!("manifest = '{manifest}'")).expect_err(manifest);
        assert_eq!(failure.code(), Some(crate::failure::Code::Refused), "{manifest}: {failure}");
    }
}

#[test]
fn no_error_repeats_a_secret() {
    for text in [
        "bitcoin_password = 86753099",
        "bitcoin_password = 8675309.9",
        "bitcoin_password = ['86753099']",
        "bitcoin_password = { x = '86753099' }",
        "bitcoin_password = 86753099x",
        "bitcoin_password = hunter86753099",
        "bitcoin_password = '86753099",
        "bitcoin_password = \"86753099\\q\"",
        "bitcoin_password = \"86753099\" 86753099",
        "bitcoin_password = 2086-75-30",
        "bitcoin_password = '86753099'\nbitcoin_password = '86753099'",
        "bitcoin_user = 86753099",
        "passphrase_file = 86753099",
        "esplora_url = 86753099",
        "esplora_url = [86753099]",
        "proxy = 86753099",
        "proxy = 'socks5h://u:86753099@h:1'",
        "max_fee = '86753099'",
        "verify_all_blocks = '86753099, expected 86753099'",
        "network = 86753099",
    ] {
        let error = ConfigFile::parse(Path::new("sortie.toml"), text).expect_err(text).to_string();
        assert!(!error.contains("867530") && !error.contains("2086"), "{text}: {error}");
        assert!(error.starts_with("sortie.toml:"), "{text}: {error}");
    }
}

#[test]
fn a_secret_that_everybody_can_read_is_refused_where_money_is_real() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("alice.key");
    std::fs::write(&path, "secret").expect("a file");
    for (mode, is_refused) in [(0o600, false), (0o640, false), (0o644, true), (0o604, true), (0o755, true)] {
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("ours");
        let checked = |network| settings(&["--network", network], "").check_private(&path);
        assert_eq!(checked("bitcoin").is_err(), is_refused, "{mode:o}");
        assert!(checked("regtest").is_ok());
        if let Err(failure) = checked("signet") {
            assert!(failure.to_string().contains(&format!("chmod 600 {}", path.display())), "{failure}");
        }
    }
}
