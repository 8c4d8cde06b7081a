# Sourced by the scripts that run tests: names each stage, and says at its end how long it took. The first that fails
# ends the script.
stages=""
stage=""

# stage_begins NAME
stage_begins() {
  stage_ends
  stage=$1
  stage_began=$SECONDS
  printf '\n==== %s\n' "$stage"
}

stage_ends() {
  [ -n "$stage" ] || return 0
  local line
  line=$(printf '%5d s  %s' $((SECONDS - stage_began)) "$stage")
  printf -- '---- %s\n' "$line"
  stages+=$line$'\n'
  stage=""
}

# With the script's exit status, from its trap.
stages_table() {
  if [ "$1" = 0 ]; then stage_ends; else printf '\n**** failed: %s\n' "$stage"; fi
  printf '\n%s%5d s  %s\n' "$stages" "$SECONDS" "$([ "$1" = 0 ] && echo "in all" || echo "until it failed")"
}

# One compiler for equal files: the library is in several builds of the same flags.
if command -v ccache >/dev/null; then
  export CMAKE_CXX_COMPILER_LAUNCHER=ccache
fi
