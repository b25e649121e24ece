//! Which room of the library reaches into which: `crate::room` and `super` paths, in macros as well.

use super::sources::{Source, is_test};
use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use std::collections::{BTreeMap, BTreeSet};
use syn::visit::{self, Visit};

type Imports = BTreeMap<String, BTreeSet<String>>;

/// The table below "Who may import whom": a room, and the rooms that it may import.
pub fn table(text: &str) -> Result<Imports> {
    let (_, section) = text.split_once("## Who may import whom").context("docs/ARCHITECTURE.md has no such heading")?;
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<BTreeSet<_>>();
    rows.map(|row| {
        let mut cells = row.trim_matches('|').split('|');
        let room = names(cells.next().unwrap_or_default()).pop_first().context("a row without a room")?;
        Ok((room, names(cells.next().unwrap_or_default())))
    })
    .collect()
}

/// What the sources import.
pub fn found(sources: &[Source]) -> Result<Imports> {
    let rooms: BTreeSet<_> = sources.iter().filter_map(Source::room).collect();
    let mut imports: Imports = rooms.iter().map(|room| (room.clone(), BTreeSet::new())).collect();
    for source in sources {
        let Some(room) = source.room() else { continue };
        let mut reader = Reader { module: source.module(), found: BTreeSet::new() };
        reader.visit_file(&source.file);
        reader.found.retain(|other| *other != room && rooms.contains(other));
        imports.entry(room).or_default().append(&mut reader.found);
    }
    Ok(imports)
}

struct Reader {
    module: Vec<String>,
    found: BTreeSet<String>,
}

impl Reader {
    /// Takes a path's segments: `crate` starts at the root, `super` one module up.
    fn path(&mut self, segments: &[String]) {
        let supers = segments.iter().take_while(|segment| *segment == "super").count();
        let (mut whole, rest) = match segments.first().map(String::as_str) {
            Some("crate") => (Vec::new(), &segments[1..]),
            Some("super") if supers <= self.module.len() => {
                (self.module[..self.module.len() - supers].to_vec(), &segments[supers..])
            }
            _ => return,
        };
        whole.extend_from_slice(rest);
        self.found.extend(whole.into_iter().next());
    }

    fn tree(&mut self, before: &[String], tree: &syn::UseTree) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            syn::UseTree::Path(path) => self.tree(&with(&path.ident), &path.tree),
            syn::UseTree::Group(group) => group.items.iter().for_each(|item| self.tree(before, item)),
            syn::UseTree::Name(name) => self.path(&with(&name.ident)),
            syn::UseTree::Rename(name) => self.path(&with(&name.ident)),
            syn::UseTree::Glob(_) => self.path(before),
        }
    }

    fn tokens(&mut self, tokens: TokenStream) {
        let mut segments: Vec<String> = Vec::new();
        for token in tokens {
            match token {
                TokenTree::Ident(name) => segments.push(name.to_string()),
                TokenTree::Punct(mark) if mark.as_char() == ':' => continue,
                TokenTree::Group(group) => self.tokens(group.stream()),
                _ => {}
            }
            if let [.., before, _] = segments.as_slice()
                && before == "crate"
            {
                let path = segments.split_off(segments.len() - 2);
                self.path(&path);
            }
        }
    }
}

impl<'a> Visit<'a> for Reader {
    fn visit_item_mod(&mut self, item: &'a syn::ItemMod) {
        if !is_test(&item.attrs) {
            self.module.push(item.ident.to_string());
            visit::visit_item_mod(self, item);
            self.module.pop();
        }
    }

    fn visit_item_use(&mut self, item: &'a syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.tree(&[], &item.tree);
        }
    }

    fn visit_path(&mut self, path: &'a syn::Path) {
        self.path(&path.segments.iter().map(|segment| segment.ident.to_string()).collect::<Vec<_>>());
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, item: &'a syn::Macro) {
        self.tokens(item.tokens.clone());
    }
}
