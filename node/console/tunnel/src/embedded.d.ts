declare module 'virtual:embedded' {
  /** The files of this directory that the service worker answers with itself, by name. */
  const embedded: { 'boot.html': string; 'boot.css': string; 'boot.js': string; 'inject.js': string }
  export default embedded
}
