/** The logo: three connected nodes. */
export function Logo() {
  return (
    <svg class="emblem" viewBox="0 0 16 16" aria-hidden="true">
      <path d="M8 3 3 12h10z" />
      <circle cx="8" cy="3" r="2.4" />
      <circle cx="3" cy="12" r="2.4" />
      <circle cx="13" cy="12" r="2.4" />
    </svg>
  )
}
