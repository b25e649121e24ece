//! Which settings a command was given on its line or by variables, so that it can say whose they are.

use clap::ArgMatches;
use clap::parser::ValueSource;
use std::collections::BTreeMap;

/// Commands that take in or spend money, or say what that costs.
const OF_MONEY: [&str; 10] =
    ["bump", "finish", "force", "quote", "reclaim", "recover", "resume", "sequencer", "wallet address", "wallet send"];

/// The options of one command line, each with its words and whether a flag or a variable gave them.
#[derive(Clone, Debug, Default)]
pub struct Given {
    command: String,
    /// Words and variable; no variable, if a flag gave them.
    options: BTreeMap<String, (String, Option<String>)>,
}

impl Given {
    /// What the innermost command was given.
    pub fn new(matches: &ArgMatches) -> Self {
        let (mut command, mut matches) = (Vec::new(), matches);
        while let Some((name, inner)) = matches.subcommand() {
            command.push(name);
            matches = inner;
        }
        let option = |id: &clap::Id| {
            let id = id.as_str();
            let from = match matches.value_source(id)? {
                ValueSource::CommandLine => None,
                ValueSource::EnvVariable => Some(format!("SORTIE_{}", id.to_uppercase())),
                _ => return None,
            };
            let words = matches.get_raw(id)?.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(",");
            Some((id.to_owned(), (words, from)))
        };
        Self { command: command.join(" "), options: matches.ids().filter_map(option).collect() }
    }

    /// Whether somebody's money goes where the settings say.
    pub fn is_of_money(&self) -> bool {
        OF_MONEY.contains(&self.command.as_str())
    }

    /// An option's words, and the variable that they come from, if it is no flag.
    pub fn option(&self, id: &str) -> Option<(&str, Option<&str>)> {
        self.options.get(id).map(|(words, variable)| (words.as_str(), variable.as_deref()))
    }
}
