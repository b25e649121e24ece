//! The workspace's Rust files, parsed.

use anyhow::{Context, Result};
use proc_macro2::{TokenStream, TokenTree};
use std::fs;
use std::path::{Path, PathBuf};
use syn::visit::{self, Visit};

/// One file, with its path from the repository's root.
pub struct Source {
    pub path: String,
    pub text: String,
    pub file: syn::File,
}

pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file that we wrote, tests included.
pub fn workspace() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    for folder in ["src", "cli", "regtest", "tests", "benches", "fuzz/src", "fuzz/fuzz_targets"] {
        read(&repository().join(folder), &mut found)?;
    }
    Ok(found)
}

/// The library's files without its tests.
pub fn library() -> Result<Vec<Source>> {
    let mut found = Vec::new();
    read(&repository().join("src"), &mut found)?;
    found.retain(|source| !source.is_test());
    Ok(found)
}

fn read(folder: &Path, found: &mut Vec<Source>) -> Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::path);
    for path in entries.iter().map(fs::DirEntry::path) {
        if path.is_dir() {
            read(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path)?;
            let path = path.strip_prefix(repository())?.to_str().context("a path that is no UTF-8")?.to_owned();
            found.push(Source::parse(path, text)?);
        }
    }
    Ok(())
}

impl Source {
    pub fn parse(path: String, text: String) -> Result<Self> {
        let file = syn::parse_file(&text).with_context(|| path.clone())?;
        Ok(Self { path, text, file })
    }

    /// Whether the file is there for tests: its tables may be long, and its imports go everywhere.
    pub fn is_test(&self) -> bool {
        self.path.split('/').any(|part| part == "tests" || part == "tests.rs")
    }

    /// The module path inside the library: `src/chain/rpc.rs` is `["chain", "rpc"]`, `src/lib.rs` is empty. The core's
    /// modules have the paths under which the library re-exports them.
    pub fn module(&self) -> Vec<String> {
        let path = self.path.trim_start_matches("src/").trim_start_matches("core/").trim_end_matches(".rs");
        path.split('/').filter(|part| !["mod", "lib"].contains(part)).map(str::to_owned).collect()
    }

    /// The top-level module that the file belongs to.
    pub fn room(&self) -> Option<String> {
        self.module().first().cloned()
    }

    /// Functions by name, with the lines from signature to closing brace.
    pub fn functions(&self) -> Vec<(String, usize)> {
        struct Found(Vec<(String, usize)>);
        impl Found {
            fn add(&mut self, signature: &syn::Signature, block: &syn::Block) {
                let end = block.brace_token.span.close().end().line;
                let lines = end + 1 - signature.fn_token.span.start().line;
                self.0.push((signature.ident.to_string(), lines));
            }
        }
        impl<'a> Visit<'a> for Found {
            fn visit_item_fn(&mut self, item: &'a syn::ItemFn) {
                self.add(&item.sig, &item.block);
                visit::visit_item_fn(self, item);
            }
            fn visit_impl_item_fn(&mut self, item: &'a syn::ImplItemFn) {
                self.add(&item.sig, &item.block);
                visit::visit_impl_item_fn(self, item);
            }
        }
        let mut found = Found(Vec::new());
        found.visit_file(&self.file);
        found.0
    }

    /// String literals outside tests and documentation, those in macros and attributes among them, with their lines.
    pub fn strings(&self) -> Vec<(usize, String)> {
        struct Found(Vec<(usize, String)>);
        impl Found {
            fn add(&mut self, literal: &syn::LitStr) {
                self.0.push((literal.span().start().line, literal.value()));
            }
            fn tokens(&mut self, tokens: TokenStream) {
                for token in tokens {
                    match token {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => {
                            if let syn::Lit::Str(literal) = syn::Lit::new(literal) {
                                self.add(&literal);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        impl<'a> Visit<'a> for Found {
            fn visit_item(&mut self, item: &'a syn::Item) {
                match item {
                    syn::Item::Mod(item) if is_test(&item.attrs) => {}
                    item => visit::visit_item(self, item),
                }
            }
            fn visit_attribute(&mut self, attribute: &'a syn::Attribute) {
                if let syn::Meta::List(list) = &attribute.meta {
                    self.tokens(list.tokens.clone());
                }
            }
            fn visit_macro(&mut self, called: &'a syn::Macro) {
                self.tokens(called.tokens.clone());
            }
            fn visit_lit_str(&mut self, literal: &'a syn::LitStr) {
                self.add(literal);
            }
        }
        let mut found = Found(Vec::new());
        found.visit_file(&self.file);
        found.0
    }

    /// Names of structs, enums, traits and type aliases outside tests.
    pub fn types(&self) -> Vec<String> {
        struct Found(Vec<String>);
        impl<'a> Visit<'a> for Found {
            fn visit_item(&mut self, item: &'a syn::Item) {
                match item {
                    syn::Item::Struct(item) => self.0.push(item.ident.to_string()),
                    syn::Item::Enum(item) => self.0.push(item.ident.to_string()),
                    syn::Item::Trait(item) => self.0.push(item.ident.to_string()),
                    syn::Item::Type(item) => self.0.push(item.ident.to_string()),
                    syn::Item::Mod(item) if is_test(&item.attrs) => return,
                    _ => {}
                }
                visit::visit_item(self, item);
            }
        }
        let mut found = Found(Vec::new());
        found.visit_file(&self.file);
        found.0
    }
}

/// Whether an item is only there for tests.
pub fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Meta>().is_ok_and(|meta| meta.path().is_ident("test"))
    })
}
