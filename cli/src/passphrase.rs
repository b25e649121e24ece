//! The wallet's passphrase: from a file, else typed on the terminal; never from a flag.

use crate::config::Settings;
use crate::escape;
use crate::failure::Failure;
use crate::input::text_of;
use sortie::wallet::{Passphrase, Wallet};
use std::path::Path;

/// Unlocks a wallet whose seed is encrypted.
pub fn unlock(wallet: Wallet, settings: &Settings) -> Result<Wallet, Failure> {
    if !wallet.is_locked() {
        return Ok(wallet);
    }
    let passphrase = current(settings, &wallet)?;
    Ok(wallet.unlock(&passphrase)?)
}

/// The passphrase that a wallet has.
pub fn current(settings: &Settings, wallet: &Wallet) -> Result<Passphrase, Failure> {
    match settings.passphrase_file() {
        Some(path) => of_file(path, settings),
        None => Ok(Passphrase::new(ask(&format!("Passphrase of the wallet in {}: ", wallet.dir().display()))?)?),
    }
}

/// The passphrase for a wallet that is about to be made.
pub fn choose(settings: &Settings) -> Result<Passphrase, Failure> {
    settings.passphrase_file().map_or_else(choose_on_terminal, |path| of_file(path, settings))
}

/// Asks for a new passphrase, twice.
pub fn choose_on_terminal() -> Result<Passphrase, Failure> {
    let typed = ask("New passphrase for the wallet: ")?;
    if ask("Once more: ")? != typed {
        return Err(Failure::usage("these were two different passphrases; nothing was changed"));
    }
    Ok(Passphrase::new(typed)?)
}

/// A file's first line.
pub fn of_file(path: &Path, settings: &Settings) -> Result<Passphrase, Failure> {
    settings.check_private(path)?;
    let text = text_of("the passphrase file ", path)?;
    let line = text.lines().next().unwrap_or_default().to_owned();
    Passphrase::new(line).map_err(|_| Failure::usage(format_args!("{}: its first line is empty", path.display())))
}

fn ask(prompt: &str) -> Result<String, Failure> {
    // Past the output, onto the terminal itself: the folder in it may have any name.
    rpassword::prompt_password(escape::line(prompt)).map_err(|_| {
        let wanted = "the wallet's passphrase is wanted, and there is no terminal to ask on";
        Failure::usage(format_args!("{wanted}; give --passphrase-file FILE"))
    })
}
