//! What the compiler says of programs that use the macros: each file in `ui/<macro>/pass` compiles and runs, and each in
//! `ui/<macro>/fail` fails with the messages that are recorded beside it.
//!
//! A case is a test of its own, such as `event::fail::ttl_bad`. `MESSAGES=overwrite` records what the compiler says now.
//! Cases are compiled with the libraries that this program is linked with, so that none is built for them.

mod messages;

use compiler_arguments::compiler_arguments;
use libtest_mimic::{Arguments, Failed, Trial};
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Output},
};

/// The compiler, and how it compiles this program.
const COMPILER: &[&str] = compiler_arguments!();

/// What is said of a lint or a long line depends on these; the folders on the way are as short on every machine.
const MESSAGES_AS_RECORDED: [&str; 5] =
    ["--error-format=json", "--diagnostic-width=140", "--verbose", "-A", "dead_code"];

fn main() -> ExitCode {
    let cases = cases().expect("the cases can be listed");
    libtest_mimic::run(&Arguments::from_args(), cases).exit_code()
}

/// Lists the cases, by name.
fn cases() -> io::Result<Vec<Trial>> {
    let mut cases = Vec::new();
    for folder in entries(&package().join("tests/ui"))? {
        for (kind, judge) in [("fail", fails as fn(&Path) -> _), ("pass", passes)] {
            let sources = entries(&folder.join(kind))?
                .into_iter()
                .filter(|path| path.extension().is_some_and(|e| e == "rs"));
            cases.extend(sources.map(|source| {
                let name = format!("{}::{kind}::{}", stem(&folder), stem(&source));
                Trial::test(name, move || judge(&source))
            }));
        }
    }
    Ok(cases)
}

fn fails(source: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let output = compile(source, &["--emit=metadata"], &folder.path().join("case"))?;
    if output.status.success() {
        return Err("it compiles, and must not".into());
    }
    let said = messages::of(&output.stderr, source, &package(), &workspace());
    let recorded = source.with_extension("stderr");
    if env::var_os("MESSAGES").is_some_and(|value| value == "overwrite") {
        return Ok(fs::write(&recorded, said)?);
    }
    let expected = fs::read_to_string(&recorded).unwrap_or_default().replace("\r\n", "\n");
    if said.trim_end() == expected.trim_end() {
        return Ok(());
    }
    let recorded = recorded.display();
    Err(format!("not as in {recorded} (MESSAGES=overwrite records it)\n\nrecorded:\n{expected}\nsaid:\n{said}").into())
}

fn passes(source: &Path) -> Result<(), Failed> {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
    let program = folder.path().join(format!("case{}", env::consts::EXE_SUFFIX));
    let output = compile(source, &["--emit=link"], &program)?;
    let said = messages::of(&output.stderr, source, &package(), &workspace());
    if !output.status.success() || !said.is_empty() {
        return Err(format!("it does not compile without a word:\n{said}").into());
    }
    let output = Command::new(&program).current_dir(package()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("it ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr))
        .into())
}

/// Compiles a program into a file.
fn compile(source: &Path, what: &[&str], into: &Path) -> io::Result<Output> {
    let (compiler, arguments) = COMPILER.split_first().expect("the compiler is named first");
    Command::new(compiler)
        .args(["--crate-name", "case", "--crate-type", "bin"])
        .args(shared(arguments))
        .args(MESSAGES_AS_RECORDED)
        .args(what)
        .arg("-o")
        .arg(into)
        .arg(source)
        .current_dir(workspace()) // from where cargo names the files of members
        // The macros look into the manifest for the names of what they need.
        .env("CARGO_MANIFEST_DIR", package())
        .env("CARGO", env!("CARGO"))
        .output()
}

/// Of the arguments that this program was compiled with, gives those that another one needs for the same libraries.
fn shared<'a>(arguments: &[&'a str]) -> Vec<&'a str> {
    const WITH_A_VALUE: [&str; 5] = ["--extern", "-L", "--edition", "--target", "--sysroot"];
    let (mut shared, mut rest) = (Vec::new(), arguments.iter().copied());
    while let Some(argument) = rest.next() {
        if WITH_A_VALUE.contains(&argument) {
            shared.extend([Some(argument), rest.next()].into_iter().flatten());
        } else if WITH_A_VALUE.iter().any(|name| argument.starts_with(&format!("{name}="))) {
            shared.push(argument);
        } else if argument == "-C" {
            shared.extend(
                rest.next()
                    .filter(|option| option.starts_with("link"))
                    .into_iter()
                    .flat_map(|option| ["-C", option]),
            );
        }
    }
    shared
}

fn package() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn workspace() -> PathBuf {
    package().parent().expect("the package is a member").to_owned()
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths =
        fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    paths.sort();
    Ok(paths)
}
