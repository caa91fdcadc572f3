//! Files and folders that appear whole or not at all.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use super::disk::{Disk, RealDisk};
use crate::error::{Error, Result};
use crate::files;

/// Makes the file or folder `target`, which must not exist yet.
///
/// `fill` makes it under the name `.tmp-NAME` beside the target; it then takes its name by a rename. What an earlier
/// call left under that name is removed first.
///
/// # Errors
/// [`Error::Input`] if `target` exists, what `fill` returns, or [`Error::Io`]; the temporary one is then removed.
pub fn publish<T>(target: &Path, fill: impl FnOnce(&Path) -> Result<T>) -> Result<T> {
    let exists = |path: &Path| path.symlink_metadata().is_ok();
    let Some(name) = target.file_name().filter(|_| !exists(target)) else {
        let why = "is there already, and nothing is overwritten: remove it or give another name";
        return Err(Error::input(format!("{}: {why}", target.display())));
    };
    let folder = target.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(Error::io(folder))?;
    let temporary = folder.join(format!(".tmp-{}", name.to_string_lossy()));
    let remove = || match temporary.symlink_metadata() {
        Ok(found) if found.is_dir() => std::fs::remove_dir_all(&temporary),
        Ok(_) => std::fs::remove_file(&temporary),
        Err(_) => Ok(()),
    };
    remove().map_err(Error::io(&temporary))?;
    let made = fill(&temporary).and_then(|value| {
        if temporary.is_dir() {
            RealDisk.sync_dir(&temporary).map_err(Error::io(&temporary))?;
        }
        std::fs::rename(&temporary, target).map_err(Error::io(target))?;
        Ok(value)
    });
    if made.is_err() {
        // The first error is the one to report.
        let _ = remove();
    }
    let value = made?;
    RealDisk.sync_dir(folder).map_err(Error::io(folder))?;
    Ok(value)
}

/// Writes the new file `path` through a buffer and flushes it to the medium.
///
/// # Errors
/// [`Error::Io`] naming `path`, or what `fill` returns; the file is then incomplete.
pub fn write_file(path: &Path, fill: impl FnOnce(&mut BufWriter<File>) -> Result<()>) -> Result<()> {
    let mut file = BufWriter::with_capacity(1 << 20, files::create(path).map_err(Error::io(path))?);
    fill(&mut file)?;
    file.flush().and_then(|()| file.get_ref().sync_all()).map_err(Error::io(path))
}

/// Makes `bytes` the contents of the file `path`, which has its old contents or these at any moment. They are written
/// beside it, to `.tmp-NAME`, flushed, and take its name. A folder of that name steps aside; a device such as `/dev/null`
/// stays one.
///
/// # Errors
/// [`Error::Io`] naming `path`; the file is then as it was, or the new one.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    if path.is_dir() {
        files::set_aside(path)?;
    }
    if files::is_device(path) {
        return std::fs::write(path, bytes).map_err(Error::io(path));
    }
    replace_on(&RealDisk, path, bytes).map_err(Error::io(path))
}

fn replace_on<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".tmp-{name}"));
    let write = || {
        let mut file = disk.create(&temporary)?;
        file.write_all(bytes)?;
        disk.sync(&mut file)?;
        disk.rename(&temporary, path)
    };
    let written = write();
    if written.is_err() {
        // The first error is the one to report.
        let _ = disk.remove_file(&temporary);
    }
    written?;
    disk.sync_dir(path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new(".")))
}

#[cfg(test)]
mod tests {
    use super::super::disk::testing::FailingDisk;
    use super::*;

    #[cfg(unix)]
    #[test]
    fn a_device_stays_one() {
        let place = tempfile::tempdir().unwrap();
        // By a link, so that a failure takes no device away.
        let path = place.path().join("nothing");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        replace(&path, b"text").unwrap();
        assert!(path.is_symlink() && files::is_device(&path));
    }

    #[test]
    fn a_replaced_file_is_the_old_or_the_new_one_at_any_moment() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("recipe.toml");
        let (old, new) = (b"old".as_slice(), b"longer and new".as_slice());
        let attempt = |disk: &FailingDisk| {
            std::fs::write(&path, old).unwrap();
            let replaced = replace_on(disk, &path, new);
            let found = std::fs::read(&path).unwrap();
            assert!(found == old || found == new, "{found:?}");
            assert!(found == new || replaced.is_err());
            replaced.is_ok()
        };
        let operations = (0..).find(|&n| attempt(&FailingDisk::dying_after(n))).unwrap();
        assert!(operations >= 5, "only {operations} operations");
        for room in 0..new.len() {
            assert!(!attempt(&FailingDisk::with_room_for(room)));
            assert!(!place.path().join(".tmp-recipe.toml").exists(), "with room for {room} bytes");
        }
        assert!(attempt(&FailingDisk::with_room_for(new.len())));
        replace(&path, b"real").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"real");
    }

    #[test]
    fn a_target_appears_whole_or_not_at_all() {
        let place = tempfile::tempdir().unwrap();
        let target = place.path().join("new/model");
        let failed: Result<()> = publish(&target, |path| {
            std::fs::create_dir(path).map_err(Error::io(path))?;
            write_file(&path.join("part"), |_| Err(Error::failure("no more")))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no more");
        assert_eq!(std::fs::read_dir(place.path().join("new")).unwrap().count(), 0);

        std::fs::write(place.path().join("new/.tmp-model"), "left by a crash").unwrap();
        let write = |text: &'static [u8]| {
            move |path: &Path| write_file(path, |file| file.write_all(text).map_err(Error::io(path)))
        };
        publish(&target, write(b"one")).unwrap();
        let refused = publish(&target, write(b"two")).unwrap_err();
        assert!(refused.to_string().contains("there already") && refused.exit_code() == 2, "{refused}");
        assert_eq!(std::fs::read(&target).unwrap(), b"one");
        assert_eq!(std::fs::read_dir(place.path().join("new")).unwrap().count(), 1);
    }
}
