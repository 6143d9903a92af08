//! A small, exact reader of Rust source: tokens without comments and literals, and every path they name, resolved.
//!
//! It leans to the strict side: a string that looks like a path counts as one (serde's attributes name code in
//! strings), and code behind `#[cfg(…)]` counts whatever the flag.

/// A piece of source, and the line on which it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
    /// The content of a string literal; everything else is code.
    pub(crate) literal: bool,
}

/// A path as its first segment, resolved to `crate` or to a package, and the rest; a rename does not show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Path {
    pub(crate) name: String,
    pub(crate) line: usize,
    pub(crate) imported: bool,
}

impl Path {
    /// Whether the path is `prefix` or lies below it.
    pub(crate) fn is_below(&self, prefix: &str) -> bool {
        self.name.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
    }

    pub(crate) fn first(&self) -> &str {
        self.name.split("::").next().unwrap_or_default()
    }
}

/// The tokens of `source`. Comments, characters and numbers' insides are gone; of a string its content is kept.
pub(crate) fn tokens(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    while lexer.at < lexer.chars.len() {
        lexer.next();
    }
    lexer.tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn bump(&mut self) -> char {
        let char = self.peek(0);
        self.at += 1;
        self.line += usize::from(char == '\n');
        char
    }

    fn push(&mut self, text: String, line: usize, literal: bool) {
        self.tokens.push(Token { text, line, literal });
    }

    fn next(&mut self) {
        let line = self.line;
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while !matches!(self.peek(0), '\n' | '\0') {
                    self.at += 1
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('\'', _) => self.quote(),
            (':', ':') => {
                self.at += 2;
                self.push("::".into(), line, false);
            }
            (char, _) if char.is_whitespace() => drop(self.bump()),
            (char, _) if char.is_alphanumeric() || char == '_' => self.word(),
            _ => {
                let char = self.bump();
                self.push(char.into(), line, false);
            }
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('\0', _) => return,
                ('/', '*') => (depth, self.at) = (depth + 1, self.at + 2),
                ('*', '/') => (depth, self.at) = (depth - 1, self.at + 2),
                _ => drop(self.bump()),
            }
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        let line = self.line;
        self.bump();
        let mut text = String::new();
        while self.at < self.chars.len() {
            match self.bump() {
                '"' => break,
                '\\' => drop(self.bump()),
                char => text.push(char),
            }
        }
        self.push(text, line, true);
    }

    /// Behind `r`, `br` or `cr`, with any number of `#`.
    fn raw_string(&mut self, hashes: usize) {
        let line = self.line;
        self.at += hashes + 1;
        let mut text = String::new();
        while self.at < self.chars.len() {
            let ends = self.peek(0) == '"' && (1..=hashes).all(|ahead| self.peek(ahead) == '#');
            if ends {
                self.at += hashes + 1;
                break;
            }
            text.push(self.bump());
        }
        self.push(text, line, true);
    }

    /// A character, or a lifetime.
    fn quote(&mut self) {
        self.bump();
        if self.peek(0) == '\\' {
            self.at += 2;
            while !matches!(self.bump(), '\'' | '\0') {}
        } else if self.peek(1) == '\'' {
            self.bump();
            self.bump();
        }
    }

    fn word(&mut self) {
        let (start, line) = (self.at, self.line);
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            self.at += 1;
        }
        let word: String = self.chars.iter().take(self.at).skip(start).collect();
        let hashes = (0..).take_while(|ahead| self.peek(*ahead) == '#').count();
        match (word.as_str(), self.peek(hashes)) {
            ("r" | "br" | "cr", '"') => self.raw_string(hashes),
            // A raw identifier is the identifier.
            ("r", _) if hashes == 1 => self.at += 1,
            _ => self.push(word, line, false),
        }
    }
}

/// Every path of two segments or more in the code of the file that is module `home` (`crate::node::replica`), and
/// every import whatever its length.
pub(crate) fn paths(tokens: &[Token], home: &str) -> Vec<Path> {
    let mut finder = Finder { tokens, home: split(home), modules: Vec::new(), depth: 0, paths: Vec::new() };
    let mut at = 0;
    while at < tokens.len() {
        at = finder.step(at);
    }
    finder.paths
}

/// The module that a file is, as `crate::…`; `root` is the folder of the crate's sources.
pub(crate) fn home(file: &str, root: &str) -> String {
    let inside = file.strip_prefix(root).unwrap_or(file).trim_start_matches('/').trim_end_matches(".rs");
    let mut module = String::from("crate");
    for part in inside.split('/').filter(|part| !matches!(*part, "mod" | "lib" | "main" | "")) {
        module.push_str("::");
        module.push_str(part);
    }
    module
}

struct Finder<'a> {
    tokens: &'a [Token],
    home: Vec<String>,
    /// Modules opened with braces in this file, each with the depth outside it.
    modules: Vec<(String, usize)>,
    depth: usize,
    paths: Vec<Path>,
}

impl Finder<'_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).filter(|token| !token.literal).map_or("", |token| &token.text)
    }

    fn is_word(&self, at: usize) -> bool {
        self.text(at).starts_with(|char: char| char.is_alphanumeric() || char == '_')
    }

    /// Takes what begins at `at`; says where the next thing begins.
    fn step(&mut self, at: usize) -> usize {
        let Some(token) = self.tokens.get(at) else { return at + 1 };
        if token.literal {
            self.string(token);
            return at + 1;
        }
        match token.text.as_str() {
            "{" => self.depth += 1,
            "}" => self.close(),
            "mod" if self.is_word(at + 1) && self.text(at + 2) == "{" => {
                self.modules.push((self.text(at + 1).into(), self.depth));
                return at + 2;
            }
            "extern" if self.text(at + 1) == "crate" => {
                self.add(&[self.text(at + 2).to_owned()], token.line, true);
                return at + 3;
            }
            "use" if self.text(at + 1) != "<" => return self.import(at + 1, &[]),
            _ if self.is_word(at) && self.text(at + 1) == "::" && !self.is_tail(at) => {
                return self.inline(at);
            }
            _ => {}
        }
        at + 1
    }

    /// Whether the word continues a path whose head was seen, as in `Vec::<u8>::new`.
    fn is_tail(&self, at: usize) -> bool {
        let before = |back: usize| at.checked_sub(back).map_or("", |at| self.text(at));
        before(1) == "::" && (before(2) == ">" || at.checked_sub(2).is_some_and(|at| self.is_word(at)))
    }

    fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.modules.last().is_some_and(|(_, outside)| *outside == self.depth) {
            self.modules.pop();
        }
    }

    fn string(&mut self, token: &Token) {
        let looks = |char: char| char.is_alphanumeric() || char == '_' || char == ':';
        if token.text.contains("::") && token.text.chars().all(looks) {
            self.add(&split(&token.text), token.line, false);
        }
    }

    fn inline(&mut self, start: usize) -> usize {
        let mut segments = vec![self.text(start).to_owned()];
        let mut at = start + 1;
        while self.text(at) == "::" && self.is_word(at + 1) {
            segments.push(self.text(at + 1).to_owned());
            at += 2;
        }
        self.add(&segments, self.tokens[start].line, false);
        at
    }

    /// A use tree behind `prefix`; ends behind its `;`, or at its `,` or `}` inside braces.
    fn import(&mut self, mut at: usize, prefix: &[String]) -> usize {
        let line = self.tokens.get(at).map_or(0, |token| token.line);
        let mut segments = prefix.to_vec();
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => return self.import_list(at + 1, &segments),
                "*" => {
                    segments.push("*".into());
                    at += 1;
                }
                "self" if !segments.is_empty() => at += 1,
                "as" => at += 2,
                _ if self.is_word(at) => {
                    segments.push(self.text(at).to_owned());
                    at += 1;
                }
                end => {
                    let behind = at + usize::from(end == ";");
                    self.add(&segments, line, true);
                    return behind;
                }
            }
        }
    }

    fn import_list(&mut self, mut at: usize, prefix: &[String]) -> usize {
        loop {
            match self.text(at) {
                "}" => {
                    at += 1;
                    return at + usize::from(self.text(at) == ";");
                }
                "" => return at + 1,
                "," => at += 1,
                _ => at = self.import(at, prefix),
            }
        }
    }

    fn add(&mut self, segments: &[String], line: usize, imported: bool) {
        let name = self.resolve(segments).join("::");
        self.paths.push(Path { name, line, imported });
    }

    fn resolve(&self, segments: &[String]) -> Vec<String> {
        let mut place = self.home.clone();
        place.extend(self.modules.iter().map(|(name, _)| name.clone()));
        let mut rest = segments;
        match rest.first().map(String::as_str) {
            Some("self") => rest = &rest[1..],
            Some("super") => {}
            _ => return rest.to_vec(),
        }
        while rest.first().is_some_and(|first| first == "super") {
            place.pop();
            rest = &rest[1..];
        }
        place.extend(rest.iter().cloned());
        place
    }
}

fn split(path: &str) -> Vec<String> {
    path.split("::").map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(source: &str, expected: &[&str]) {
        let found: Vec<_> = paths(&tokens(source), "crate::a::b").into_iter().map(|path| path.name).collect();
        assert_eq!(found, expected, "{source}");
    }

    #[test]
    fn imports_are_taken_apart() {
        check("use x;", &["x"]);
        check("use ::x::y as z;", &["x::y"]);
        check("pub(crate) use x::{y::{self, Z}, w as _, *};", &["x::y", "x::y::Z", "x::w", "x::*"]);
        check("use x::{\n  y,\n};\nuse z::w;", &["x::y", "z::w"]);
        check("use {x::y, z::{w}};", &["x::y", "z::w"]);
        check("extern crate x as y;", &["x"]);
        check("use r#x::r#y;", &["x::y"]);
        check("fn f() { use x::y; y() }", &["x::y"]);
        check("fn f<'a>() -> impl Fn() + use<'a> { x::y }", &["x::y"]);
    }

    #[test]
    fn relative_paths_are_resolved() {
        check("use self::c::D;", &["crate::a::b::c::D"]);
        check("use super::c;", &["crate::a::c"]);
        check("use super::super::c::{self, D};", &["crate::c", "crate::c::D"]);
        check(
            "mod tests { use super::*; mod deep { use super::super::x; } } use super::y;",
            &["crate::a::b::*", "crate::a::b::x", "crate::a::y"],
        );
        check("mod c; fn f() { if x { super::y() } }", &["crate::a::y"]);
        check("use crate as root;", &["crate"]);
        check("use super::{super::{super::x}};", &["x"]);
    }

    #[test]
    fn paths_in_code_are_found() {
        check("let x: Vec<a::b::C> = ::d::e!(f::<g::H>::i());", &["a::b::C", "d::e", "f", "g::H"]);
        check("<x::Y as z::W>::v(); (a)::b; $crate::c()", &["x::Y", "z::W", "crate::c"]);
        check("#[derive(serde::Serialize)] struct X(y::Z);", &["serde::Serialize", "y::Z"]);
        check("#[serde(with = \"crate::codec::octets\")] x: Y", &["crate::codec::octets"]);
        check("a :: b\n  ::c", &["a::b::c"]);
    }

    #[test]
    fn what_is_not_code_is_passed_over_and_what_follows_is_not() {
        check("// a::b\n/* c::d /* e::f */ g::h */ x::y", &["x::y"]);
        check("/// a::b\n//! c::d\nx::y", &["x::y"]);
        check(r##"let s = "a::b c"; let t = r#"d::e " f"#; x::y"##, &["x::y"]);
        check(r#"let s = "\" a::b \\"; x::y"#, &["x::y"]);
        check(r#"let s = b"a b"; let c = '"'; let d = '\''; let e = b'"'; x::y"#, &["x::y"]);
        check(
            "fn f<'a>(x: &'a str, y: &'static str) { x::y('{') } mod m { use super::z; }",
            &["x::y", "crate::a::b::z"],
        );
    }

    #[test]
    fn lines_are_counted_through_comments_and_strings() {
        let tokens = tokens("/* \n */ \"\n\\\n\" r\"\n\" x");
        assert_eq!(tokens.last().map(|token| token.line), Some(5));
    }

    #[test]
    fn files_are_modules() {
        assert_eq!(home("src/lib.rs", "src"), "crate");
        assert_eq!(home("src/node/mod.rs", "src"), "crate::node");
        assert_eq!(home("storage/src/wal/chore.rs", "storage/src"), "crate::wal::chore");
    }
}
