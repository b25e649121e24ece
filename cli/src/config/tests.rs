use super::*;
use crate::args::Cli;
use clap::Parser;

fn flags(arguments: &[&str]) -> Globals {
    Cli::parse_from([&["sortie"], arguments, &["scan"]].concat()).globals
}

fn settings(arguments: &[&str], file: &str) -> Settings {
    let file = ConfigFile::parse(Path::new("/etc/sortie/sortie.toml"), file).expect("a settings file");
    Settings::merge(flags(arguments), None, file, Some("/default".into())).expect("settings")
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
